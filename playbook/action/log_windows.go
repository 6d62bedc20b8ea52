package action

import (
	"os"
	"time"
)

// noFollow is nothing on Windows, where making a symbolic link takes a privilege.
const noFollow = 0

// lockLog does nothing on Windows, where a lock would keep others from reading the log.
func lockLog(*os.File, time.Duration) {}
