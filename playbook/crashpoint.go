//go:build !riposte_crashpoints || !linux

package playbook

// crashpoint does nothing. In a build with the tag riposte_crashpoints, which is for tests
// alone, it is where a replica can be made to kill or freeze itself.
func crashpoint(b boundary, about ...string) {}
