package guard

import (
	"riposte/playbook/action"
	"riposte/stream/proc"
)

// Process implements action.Guard.
func (f *Floor) Process(st proc.Stat) error {
	if st.PID <= 1 {
		return action.Refuse("PID %d is init", st.PID)
	}
	if st.KernelThread() {
		return action.Refuse("PID %d is a kernel thread", st.PID)
	}
	kin, err := f.kin()
	if err != nil {
		return action.Refuse("the processes of Riposte cannot be told from others: %v", err)
	}
	if what, ok := kin[st.PID]; ok {
		return action.Refuse("PID %d is %s", st.PID, what)
	}
	return service(st)
}
