package pace

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// clockMonotonic is CLOCK_MONOTONIC of clock_gettime(2).
const clockMonotonic = 1

// fileTimer is a timerfd.
type fileTimer struct {
	file  *os.File
	raw   syscall.RawConn
	count uint64 // of ticks since the last; nobody asks
	try   func(fd uintptr) (over bool)
}

func openTimer(period time.Duration) (timer, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("timerfd_create", errno)
	}
	t := &fileTimer{file: os.NewFile(fd, "timer")}
	t.try = t.read
	err := t.start(fd, period)
	if err == nil {
		err = t.file.SetReadDeadline(time.Time{}) // refused when the poller does not take the file
	}
	if err == nil {
		t.raw, err = t.file.SyscallConn()
	}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

func (t *fileTimer) start(fd uintptr, period time.Duration) error {
	when := struct{ interval, first syscall.Timespec }{
		syscall.NsecToTimespec(period.Nanoseconds()), syscall.NsecToTimespec(untilNext(period).Nanoseconds()),
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&when)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("timerfd_settime", errno)
	}
	return nil
}

func (t *fileTimer) wait() bool { return t.raw.Read(t.try) == nil }

// read takes the ticks away. It can't block, so the scheduler is not told; see package shortcall.
func (t *fileTimer) read(fd uintptr) (over bool) {
	_, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&t.count)), unsafe.Sizeof(t.count))
	return errno == 0
}

func (t *fileTimer) stop() { _ = t.file.Close() }
