//go:build unix && !linux

package gate

func checkFilesystem(string) error { return nil }
