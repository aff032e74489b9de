package child

import "syscall"

func dieWithParent(a *syscall.SysProcAttr, s syscall.Signal) {
	if s == 0 {
		s = syscall.SIGKILL
	}
	a.Pdeathsig = s
}
