package action

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"riposte/stream"
)

// programTarget is what blocks of a program take turns at.
const programTarget = "program/"

// maxProgram is MAX_PATH of Windows, and its closing zero.
const maxProgram = 259

// parentProgram is the executable of the process that started the alert's, as the alert has it.
func parentProgram(a *stream.Alert) *string {
	var exe string
	if a.Process != nil && a.Process.Parent != nil {
		exe = clip(a.Process.Parent.Exe, maxProgram+1) // which is refused then
	}
	return &exe
}

// programForm is an absolute path of Windows: nothing that netsh would take for the end of its
// argument, for a variable or for more than one file.
var programForm = regexp.MustCompile(`^[A-Za-z]:(\\[^\\/:*?"<>|%\pC]+)+$`)

// systemFolder is where Windows keeps what everything else needs.
var systemFolder = regexp.MustCompile(`(?i)^[A-Z]:\\Windows\\`)

// guardedProgram refuses what is not to be blocked: anybody may have written the path.
func guardedProgram(guard Guard, path, backend string) error {
	own, err := os.Executable()
	if err != nil {
		return RefuseUnread("which program Riposte is cannot be read: %v", err)
	}
	switch shown := printable(clip(path, maxField)); {
	case backend != Netsh:
		return Refuse("only netsh blocks a program; this is %s", backend)
	case path == "":
		return Refuse("the alert does not name the executable of the process's parent")
	case len(path) > maxProgram:
		return Refuse("%q is a path of more than %d bytes", shown, maxProgram)
	case !programForm.MatchString(path):
		return Refuse("%q is not an absolute path of Windows", shown)
	case strings.Contains(path+`\`, `.\`) || strings.Contains(path+`\`, ` \`):
		return Refuse("%q has a name in it that ends in a dot or a space, which Windows reads otherwise", shown)
	case strings.Contains(path, "~"):
		return Refuse("%q may be a short name, which says nothing of the file", shown)
	case systemFolder.MatchString(path):
		return Refuse("%q belongs to Windows itself", shown)
	case strings.EqualFold(path, own):
		return Refuse("%q is Riposte itself", shown)
	}
	if files, ok := guard.(FileGuard); ok {
		return files.File(path)
	}
	return nil
}

// programFirewall is a firewall that can block a program, whomever it talks to. Its blocks know
// no end, and each alert has its own.
type programFirewall interface {
	// programStands says that there is a block in both directions.
	programStands(ctx context.Context, path string) (bool, error)
	blockProgram(ctx context.Context, path string) error
	unblockProgram(ctx context.Context, path string) error
}

func programsOf(fw firewall) (programFirewall, error) {
	p, ok := fw.(programFirewall)
	if !ok {
		return nil, Refuse("this firewall blocks no programs")
	}
	return p, nil
}

// probeProgram does for a program what Probe does for addresses.
func (b *BlockIP) probeProgram(ctx context.Context, env Env, fw programFirewall) (r Receipt, inPlace bool, err error) {
	list, err := env.claimsOn(programTarget + *b.Program)
	if err != nil {
		return r, false, err
	}
	if own, ok := list.of(env.Key); env.Claims != nil && (!ok || own.Begun) {
		return r, false, nil
	}
	inPlace, err = fw.programStands(ctx, *b.Program)
	return b.programReceipt(), inPlace, err
}

func (b *BlockIP) programReceipt() Receipt {
	return Receipt{Blocked, programText(*b.Program) + ", in and out, by netsh, until it is removed by hand"}
}

// enforceProgram does for a program what enforce does for addresses.
func (b *BlockIP) enforceProgram(ctx context.Context, env Env, fw programFirewall) (Receipt, error) {
	if r, inPlace, err := b.probeProgram(ctx, env, fw); err != nil || inPlace {
		return r, err
	}
	target := programTarget + *b.Program
	own := Claim{Key: env.Key, AlertID: env.AlertID, Backend: b.Backend, Made: b.TTL,
		Until: time.Now().Add(time.Duration(b.TTL)).UTC(), Begun: true}
	if err := env.claim(target, own); err != nil {
		return Receipt{}, err
	}
	stands, err := fw.programStands(ctx, *b.Program)
	if err == nil && !stands { // though half of it may, if somebody died here
		if err = fw.unblockProgram(ctx, *b.Program); err == nil {
			err = fw.blockProgram(ctx, *b.Program)
		}
		if err == nil {
			stands, err = fw.programStands(ctx, *b.Program)
		}
	}
	if err != nil {
		return Receipt{}, err
	}
	if !stands {
		return Receipt{}, fmt.Errorf("%s: not observed afterwards; does something else rewrite the firewall?", programText(*b.Program))
	}
	own.Begun = false
	return b.programReceipt(), env.claim(target, own)
}

// programClaims are the keys of the claims that are to go. stays says that another step of the
// alert, whose rules are the same, asks for the program, too.
func (u *UnblockIP) programClaims(list claims, env Env) (keys []string, stays bool) {
	for _, c := range list {
		if c.Key == env.Undoes || env.Undoes == "" && c.AlertID == env.AlertID {
			keys = append(keys, c.Key)
		} else if c.AlertID == env.AlertID && !c.Begun {
			stays = true
		}
	}
	return keys, stays
}

// lookProgram says whether the block of the program that is to be taken back is gone.
func (u *UnblockIP) lookProgram(ctx context.Context, env Env, fw programFirewall) (r Receipt, done bool, err error) {
	list, err := env.claimsOn(programTarget + *u.Program)
	if err != nil {
		return r, false, err
	}
	keys, stays := u.programClaims(list, env)
	there, err := fw.programStands(ctx, *u.Program)
	r = Receipt{Unblocked, programText(*u.Program) + " is not blocked any more (netsh)"}
	if there && stays {
		r.Reason = programText(*u.Program) + " stays blocked by netsh: another step of the same alert asks for it"
	}
	return r, len(keys) == 0 && there == stays, err
}

// releaseProgram changes the firewall first and the claims when that was seen, as release does.
func (u *UnblockIP) releaseProgram(ctx context.Context, env Env, fw programFirewall) (Receipt, error) {
	target := programTarget + *u.Program
	list, err := env.claimsOn(target)
	if err != nil {
		return Receipt{}, err
	}
	keys, stays := u.programClaims(list, env)
	if !stays {
		if err := fw.unblockProgram(ctx, *u.Program); err != nil {
			return Receipt{}, err
		}
		there, err := fw.programStands(ctx, *u.Program)
		if err != nil {
			return Receipt{}, err
		}
		if there {
			return Receipt{}, fmt.Errorf("%s still stands in netsh; does something else rewrite the firewall?", programText(*u.Program))
		}
	}
	if len(keys) > 0 {
		if err := env.Claims.Drop(target, keys...); err != nil {
			return Receipt{}, err
		}
	}
	r, _, err := u.lookProgram(ctx, env, fw)
	return r, err
}

func programText(path string) string { return "the program " + printable(path) }
