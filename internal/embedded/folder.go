package embedded

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	folderPrefix = "walkey-server-"
	lockName     = "owner.lock"
	// A folder younger than this may belong to a process that is about to take its lock.
	lockGrace = time.Minute
)

// folder is the place of a server's files.
type folder struct {
	path      string
	temporary bool
	lock      *os.File // held while a temporary folder is in use; the kernel lets go of it when this process dies
}

var sweepOnce sync.Once

// openFolder makes path and gives it to the user; an empty path means a new temporary folder.
func openFolder(path string, owner *syscall.Credential) (*folder, error) {
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return nil, err
		}
		return &folder{path: abs}, nil
	}
	sweepOnce.Do(sweep)
	abs, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return nil, err
	}
	f := &folder{path: abs, temporary: true}
	if f.lock, err = takeLock(filepath.Join(abs, lockName)); err == nil {
		err = give(abs, owner)
	}
	if err != nil {
		_ = f.remove()
		return nil, err
	}
	return f, nil
}

// remove takes a temporary folder away and leaves any other as it is.
func (f *folder) remove() error {
	if !f.temporary {
		return nil
	}
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		_ = f.lock.Close()
	}
	return err
}

// TempDir makes a temporary folder for what belongs to the servers' user: programs, logs. Like a server's own it is removed by the
// next process when this one dies before it calls remove.
func TempDir() (path string, remove func() error, err error) {
	f, err := openFolder("", nil)
	if err != nil {
		return "", nil, err
	}
	return f.path, f.remove, nil
}

func takeLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// sweep removes temporary folders whose owner is dead. What can't be removed (another user's) stays.
func sweep() {
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range paths {
		if dead(path) {
			_ = os.RemoveAll(path)
		}
	}
}

// dead tells whether a temporary folder's owner is: nobody holds its lock, and it is too old for one who is about to.
func dead(path string) bool {
	lockPath := filepath.Join(path, lockName)
	info, err := os.Lstat(lockPath)
	if err != nil { // left by a process that died before it had made the lock file
		info, err = os.Lstat(path)
		return err == nil && info.IsDir() && time.Since(info.ModTime()) > lockGrace
	}
	if time.Since(info.ModTime()) < lockGrace {
		return false
	}
	lock, err := takeLock(lockPath)
	if err != nil {
		return false
	}
	_ = lock.Close()
	return true
}

// give makes the user the owner of everything under path; nil leaves it with the user of this process.
func give(path string, owner *syscall.Credential) error {
	if owner == nil {
		return nil
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(owner.Uid), int(owner.Gid))
	})
}

// unprivileged is the user that a Postgres started by root runs as (Postgres refuses root); nil when this process is not root's.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("root may not run Postgres, and there is neither a user postgres nor nobody")
}

// userID is whom files belong to that are given to owner.
func userID(owner *syscall.Credential) int {
	if owner == nil {
		return os.Geteuid()
	}
	return int(owner.Uid)
}
