package gate

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkFilesystem refuses file systems whose locks another machine could hold, or that
// free them late. Magic numbers: statfs(2).
func checkFilesystem(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	remote := map[int64]string{
		unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.SMB2_SUPER_MAGIC: "smb2", unix.CIFS_SUPER_MAGIC: "cifs",
		unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs", unix.CODA_SUPER_MAGIC: "coda",
	}
	if name, ok := remote[int64(st.Type)]; ok {
		return fmt.Errorf("%s is on a network file system (%s), whose locks prove nothing; name a local folder", dir, name)
	}
	return nil
}
