//go:build !linux

package sensor

import (
	"errors"
	"log/slog"
)

func subscribe(*slog.Logger) (source, error) {
	return nil, errors.New("the proc connector is Linux only")
}
