package action

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"riposte/stream"
)

var notifyEnv = Env{Key: "h1/notify/a-1/book/tell", AlertID: "a-1"}

const suspicious = `{"id":"a-1","level":"HIGH","title":"reverse shell <!channel>","rule":{"id":"r1","name":"n"},
	"process":{"pid":4711,"name":"bash","exe":"/bin/bash","cmdline":"bash -i\u001b[2J"},"source_ip":"198.51.100.2"}`

// notification is what a playbook with that `with` tells of an alert, read back from the
// ledger.
func notification(t *testing.T, with, alert string) *Notify {
	t.Helper()
	spec := new(NotifySpec)
	if err := yaml.UnmarshalWithOptions([]byte(with), spec, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	a, err := stream.Decode([]byte(alert), "1-0")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(spec.Resolve(a, Seen{}))
	if err != nil {
		t.Fatal(err)
	}
	e, class, err := Decode("notify", raw)
	if err != nil || class != Idempotent {
		t.Fatal(class, err)
	}
	quiet(t, string(raw), e.Describe())
	return e.(*Notify)
}

// quiet holds texts that others read to what they may show: every secret of these tests has
// that word in it.
func quiet(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(text, "hunter2") {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

// tell applies, and holds what came of it to the rules for both.
func tell(t *testing.T, n *Notify) (Receipt, error) {
	t.Helper()
	return tellBy(t, t.Context(), n)
}

func tellBy(t *testing.T, ctx context.Context, n *Notify) (Receipt, error) {
	t.Helper()
	if r, inPlace, err := n.Probe(ctx, notifyEnv); inPlace || err != nil || r != (Receipt{}) {
		t.Errorf("probe: %v, %t, %v", r, inPlace, err)
	}
	r, err := n.Apply(ctx, notifyEnv)
	if err != nil {
		quiet(t, err.Error())
	}
	if quiet(t, r.Reason); (err == nil) != (r.Outcome == Notified || r.Outcome == Failed) {
		t.Errorf("%+v, %v", r, err)
	}
	return r, err
}

// wrong tells, which must go wrong: for good, or so that another attempt makes sense.
func wrong(t *testing.T, n *Notify, forGood bool) string {
	t.Helper()
	r, err := tell(t, n)
	if r.Outcome == Notified || (r.Outcome == Failed) != forGood {
		t.Errorf("%+v, %v; for good: %t", r, err, forGood)
	}
	if err != nil {
		return err.Error()
	}
	return r.Reason
}

func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// receiver is a web server with a certificate that only its own CA file vouches for.
type receiver struct {
	*httptest.Server
	ca string
	mu sync.Mutex
	// What came in, in order.
	headers []http.Header
	bodies  [][]byte
}

func receive(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.headers, r.bodies = append(r.headers, req.Header), append(r.bodies, body)
		r.mu.Unlock()
		answer(w, req)
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	r.ca = secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})))
	return r
}

func (r *receiver) received() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
}

func TestNotifyWebhook(t *testing.T) {
	status := []int{500, 200, 204}
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(status[0])
		status = status[1:]
	})
	key := secretFile(t, "hunter2-key\n")
	n := notification(t, fmt.Sprintf("{channel: webhook, url_file: %s, secret_file: %s, ca_file: %s}", secretFile(t, r.URL+"/hook/hunter2?a=b\n"), key, r.ca), suspicious)
	before := time.Now()
	if _, err := tell(t, n); err == nil || !strings.Contains(err.Error(), "notify by webhook: HTTP status 500") {
		t.Error(err)
	}
	for range 2 {
		if got, err := tell(t, n); err != nil || !strings.HasPrefix(got.Reason, strings.TrimPrefix(r.URL, "https://")+" took it, HTTP status 20") {
			t.Error(got, err)
		}
	}
	if r.received() != 3 {
		t.Fatalf("%d messages", r.received())
	}
	for i, h := range r.headers {
		stamp := h.Get("X-Riposte-Timestamp")
		mac := hmac.New(sha256.New, []byte("hunter2-key"))
		mac.Write([]byte(stamp + "." + string(r.bodies[i])))
		if h.Get("X-Riposte-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || h.Get("Idempotency-Key") != notifyEnv.Key || h.Get("Content-Type") != "application/json" {
			t.Errorf("%v", h)
		}
		var sec int64
		if _, err := fmt.Sscan(stamp, &sec); err != nil || sec < before.Unix() || sec > time.Now().Unix() {
			t.Errorf("timestamp %s", stamp)
		}
		if !bytes.Equal(r.bodies[i], r.bodies[0]) {
			t.Error("a repetition is another message")
		}
	}
	var got map[string]any
	if err := json.Unmarshal(r.bodies[0], &got); err != nil {
		t.Fatal(err)
	}
	text := "HIGH: reverse shell <!channel>\nHost: h1\nRule: r1 n\nProcess: PID 4711 bash /bin/bash\nCommand line: bash -i\\u001b[2J\nAddress: 198.51.100.2\nStep: h1/notify/a-1/book/tell\n"
	for field, want := range map[string]any{
		"key": notifyEnv.Key, "alert_id": "a-1", "host": "h1", "group": "notify", "playbook": "book", "step": "tell", "level": "HIGH", "rule": "r1",
		"title": "reverse shell <!channel>", "actionable_pid": 4711.0, "source_ip": "198.51.100.2", "subject": "[HIGH] reverse shell <!channel> on h1", "text": text,
	} {
		if got[field] != want {
			t.Errorf("%s: %q, want %q", field, got[field], want)
		}
	}
}

func TestNotifyWebhookFails(t *testing.T) {
	elsewhere := receive(t, func(w http.ResponseWriter, req *http.Request) {})
	started := make(chan struct{}, 1)
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/redirect", "/other":
			http.Redirect(w, req, map[string]string{"/redirect": "/fine", "/other": elsewhere.URL}[req.URL.Path], http.StatusTemporaryRedirect)
		case "/echo-hunter2":
			http.Error(w, "no \x1b[2J such hook: "+req.URL.String(), http.StatusNotFound)
		case "/long-hunter2": // cut in the middle of the secret by who reads 512 bytes
			http.Error(w, strings.Repeat(" ", 512-len("/long-hunter"))+req.URL.String(), http.StatusNotFound)
		case "/slow":
			w.WriteHeader(http.StatusAccepted)
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		case "/endless":
			w.WriteHeader(http.StatusBadGateway)
			for req.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "/never":
			started <- struct{}{}
			<-req.Context().Done()
		}
	})
	about := func(path string) *Notify {
		return notification(t, fmt.Sprintf("{channel: webhook, url_file: %s, ca_file: %s}", secretFile(t, r.URL+path), r.ca), suspicious)
	}
	for path, says := range map[string]string{
		"/redirect": "HTTP status 307: redirects are not followed", "/other": "HTTP status 307: redirects are not followed",
		"/echo-hunter2": "HTTP status 404: \"no \\\\u001b[2J such hook: /[redacted]\"", "/endless": "HTTP status 502",
		"/long-hunter2": "HTTP status 404: \"/[redacted]\"",
	} {
		if said := wrong(t, about(path), strings.Contains(says, "404")); !strings.Contains(said, says) {
			t.Errorf("%s: %s, want %q", path, said, says)
		}
	}
	if r, err := tell(t, about("/slow")); err != nil || !strings.HasSuffix(r.Reason, "status 202") {
		t.Errorf("an answer that does not end: %v, %v", r, err)
	}
	if elsewhere.received() != 0 {
		t.Error("a redirect to another host was followed")
	}
	for _, h := range r.headers {
		if h.Get("X-Riposte-Signature") != "" {
			t.Error("signed without a key")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := tellBy(t, ctx, about("/never")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := about("/fine").Apply(ctx, notifyEnv); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not begun") {
		t.Error(err)
	}
	n, before := about("/fine"), r.received()
	n.With.CAFile = elsewhere.ca // of another server with the same name; both are of httptest
	if r.Certificate().Equal(elsewhere.Certificate()) {
		n.With.CAFile = "" // the system's do not know it
	}
	if _, err := tell(t, n); err == nil || !strings.Contains(err.Error(), "certificate") || r.received() != before {
		t.Errorf("%v, and %d messages", err, r.received()-before)
	}
	r.Close()
	if _, err := tell(t, about("/hunter2")); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	n = about("/x")
	if err := os.WriteFile(n.With.URLFile, []byte("https://bob:hunter2 @h/\x01"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []*Notify{n, {With: NotifySpec{Channel: webhook, URLFile: "/does/not/exist"}}, {With: NotifySpec{Channel: webhook, URLEnv: "RIPOSTE_TEST_NO_SUCH"}}} {
		_, inPlace, err := broken.Probe(t.Context(), notifyEnv)
		_, err2 := broken.Apply(t.Context(), notifyEnv)
		if inPlace || err == nil || err2 == nil {
			t.Errorf("%+v: %v, %v", broken.With, err, err2)
			continue
		}
		quiet(t, err.Error(), err2.Error())
	}
}

// Some answers are for good, and some say when to come again.
func TestNotifyAnswers(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Retry-After", "7")
		var code int
		fmt.Sscan(strings.TrimPrefix(req.URL.Path, "/"), &code)
		w.WriteHeader(code)
	})
	for code, want := range map[int]string{
		400: "for good", 401: "for good", 403: "for good", 404: "for good", 410: "for good", 422: "for good", 499: "for good",
		408: "0s", 425: "0s", 429: "7s", 503: "7s", 500: "0s", 502: "0s", 302: "0s", 600: "0s",
	} {
		n := notification(t, fmt.Sprintf("{channel: webhook, url: %s/%d, ca_file: %s}", r.URL, code, r.ca), suspicious)
		said := wrong(t, n, want == "for good")
		if !strings.Contains(said, fmt.Sprint("HTTP status ", code)) || strings.Contains(said, "the same again") != (want == "for good") {
			t.Errorf("%d: %s", code, said)
		}
		_, err := n.Apply(t.Context(), notifyEnv)
		if later := new(Later); errors.As(err, &later) && later.After.String() != want {
			t.Errorf("%d: again after %s, want %s", code, later.After, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"0": 0, "120": 2 * time.Minute, "007": 7 * time.Second, "31536000": 365 * 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Friday, 02-Jan-26 03:05:05 GMT": time.Minute, "Fri Jan  2 03:05:05 2026": time.Minute,
		"Fri, 02 Jan 2026 03:04:04 GMT": 0, "Mon, 01 Jan 0001 00:00:00 GMT": 0, // has been
		"": 0, "soon": 0, "-5": 0, "+5": 0, "1.5": 0, "5s": 0, "1e9": 0, "0x10": 0, "1_0": 0, "５": 0, "5, 6": 0, "Fri, 02 Jan 2026 03:05:05 CET": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for _, forever := range []string{"4294967296", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		if got := retryAfter(forever, now); got < 60*365*24*time.Hour {
			t.Errorf("%q: %s", forever, got)
		}
	}
}

// A sender that is killed when the server has the message, and nobody has been told, makes its
// successor send it again under the same key.
func TestNotifyKilled(t *testing.T) {
	const role = "RIPOSTE_TEST_NOTIFY"
	if raw := os.Getenv(role); raw != "" {
		e, _, err := Decode("notify", json.RawMessage(raw))
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Apply(t.Context(), notifyEnv)
		t.Fatal("it lives on: ", r, err)
	}
	sender := exec.Command(os.Args[0], "-test.run=^TestNotifyKilled$")
	var once sync.Once
	started := make(chan struct{})
	r := receive(t, func(w http.ResponseWriter, req *http.Request) {
		once.Do(func() { <-started; sender.Process.Kill(); <-req.Context().Done() })
	})
	n := notification(t, fmt.Sprintf("{channel: webhook, url: %s/hook, ca_file: %s}", r.URL, r.ca), suspicious)
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	sender.Env = append(os.Environ(), role+"="+string(raw))
	var out bytes.Buffer
	sender.Stdout, sender.Stderr = &out, &out
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	if err := sender.Wait(); err == nil || sender.ProcessState.Exited() || r.received() != 1 {
		t.Fatalf("%v, %d messages\n%s", err, r.received(), &out)
	}
	if _, err := tell(t, n); err != nil || r.received() != 2 {
		t.Fatalf("%v, %d messages", err, r.received())
	}
	if !bytes.Equal(r.bodies[0], r.bodies[1]) || r.headers[0].Get("Idempotency-Key") != notifyEnv.Key || r.headers[1].Get("Idempotency-Key") != notifyEnv.Key {
		t.Errorf("%v\n%v", r.headers[0], r.headers[1])
	}
}

func TestNotifySlack(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, "ok") })
	t.Setenv("SLACK_HOOK", r.URL+"/services/hunter2")
	n := notification(t, fmt.Sprintf("{channel: slack, url_env: SLACK_HOOK, ca_file: %s}", r.ca), suspicious)
	if _, err := tell(t, n); err != nil {
		t.Fatal(err)
	}
	n.With.Subject, n.With.Text = "here & now", "<https://evil.example|click> me"
	if _, err := tell(t, n); err != nil {
		t.Fatal(err)
	}
	want := []string{"HIGH: reverse shell &lt;!channel&gt;\nHost: h1\n", "here &amp; now\n&lt;https://evil.example|click&gt; me"}
	for i, body := range r.bodies {
		var got map[string]string
		if err := json.Unmarshal(body, &got); err != nil || len(got) != 1 || !strings.HasPrefix(got["text"], want[i]) {
			t.Errorf("%v: %s", err, body)
		}
		if h := r.headers[i]; h.Get("X-Riposte-Timestamp") != "" {
			t.Errorf("%v", h)
		}
	}
}

// mailServer is just enough of SMTP, on loopback.
type mailServer struct {
	addr, ca string
	mu       sync.Mutex
	said     []string // by the client, line by line, without the messages
	letters  []string
	authed   []string // user and password
	secure   []bool   // of each letter
}

// serveMail starts one. extensions are what EHLO answers; a command in refuse is answered so;
// tlsFirst is for port 465.
func serveMail(t *testing.T, tlsFirst bool, extensions string, refuse map[string]string) *mailServer {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	s := &mailServer{ca: secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))}
	config := &tls.Config{Certificates: web.TLS.Certificates}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if tlsFirst {
					conn = tls.Server(conn, config)
				}
				s.serve(conn, config, extensions, refuse, tlsFirst)
			})
		}
	})
	return s
}

func (s *mailServer) serve(conn net.Conn, config *tls.Config, extensions string, refuse map[string]string, secure bool) {
	in := bufio.NewReader(conn)
	say := func(line string) { io.WriteString(conn, line+"\r\n") }
	hear := func() (string, bool) {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.said = append(s.said, line)
		s.mu.Unlock()
		return line, err == nil
	}
	decoded := func(text string) string { raw, _ := base64.StdEncoding.DecodeString(text); return string(raw) }
	if refuse["greeting"] == "never" {
		hear()
		return
	}
	say("220 here")
	for {
		line, ok := hear()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		if answer := refuse[verb]; answer != "" {
			say(answer)
			continue
		}
		switch verb {
		case "EHLO":
			say("250-here")
			for _, e := range strings.Split(extensions, ",") {
				say("250-" + e)
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go")
			conn = tls.Server(conn, config)
			in, secure, extensions = bufio.NewReader(conn), true, strings.Replace(extensions, "STARTTLS", "HELP", 1)
		case "AUTH":
			user := ""
			if kind, first, _ := strings.Cut(rest, " "); kind == "PLAIN" {
				user = strings.TrimPrefix(strings.ReplaceAll(decoded(first), "\x00", ":"), ":")
			} else {
				say("334 " + base64.StdEncoding.EncodeToString([]byte("Username:")))
				name, _ := hear()
				say("334 " + base64.StdEncoding.EncodeToString([]byte("Password:")))
				password, _ := hear()
				user = decoded(name) + ":" + decoded(password)
			}
			s.authed = append(s.authed, user)
			say("235 fine")
		case "DATA":
			say("354 go on")
			var letter strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				letter.WriteString(strings.TrimPrefix(line, "."))
			}
			s.letters, s.secure = append(s.letters, letter.String()), append(s.secure, secure)
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 fine")
		}
	}
}

// letter parses one and returns its body.
func letter(t *testing.T, raw string) (mail.Header, string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return m.Header, string(body)
}

func TestNotifyEmail(t *testing.T) {
	password := secretFile(t, "hunter2\n")
	for name, c := range map[string]struct {
		tlsFirst         bool
		offers, with     string
		authed           []string
		secure, repeated bool
	}{
		"starttls":        {false, "STARTTLS,AUTH LOGIN PLAIN", "username: bob, password_file: " + password, []string{"bob:hunter2", "bob:hunter2"}, true, true},
		"login":           {false, "STARTTLS,AUTH LOGIN", "tls: starttls, username: bob, password_file: " + password, []string{"bob:hunter2", "bob:hunter2"}, true, true},
		"tls":             {true, "AUTH PLAIN", "tls: tls, username: bob, password_file: " + password, []string{"bob:hunter2", "bob:hunter2"}, true, true},
		"none":            {false, "HELP", "tls: none", nil, false, true},
		"none, to itself": {false, "AUTH LOGIN", "tls: none, username: bob, password_file: " + password, []string{"bob:hunter2", "bob:hunter2"}, false, true},
	} {
		s := serveMail(t, c.tlsFirst, c.offers, nil)
		n := notification(t, fmt.Sprintf(`{channel: email, smtp: "%s", ca_file: %s, from: Riposte <riposte@example.org>, to: [ops@example.org, "Ärger <b@example.org>"], %s}`, s.addr, s.ca, c.with), suspicious)
		for range 2 {
			if r, err := tell(t, n); err != nil || r.Reason != s.addr+" took it" {
				t.Fatal(name, r, err)
			}
		}
		if strings.Join(s.authed, " ") != strings.Join(c.authed, " ") || len(s.letters) != 2 || s.secure[0] != c.secure {
			t.Fatalf("%s: %v, %d letters, %v", name, s.authed, len(s.letters), s.secure)
		}
		first, body := letter(t, s.letters[0])
		again, _ := letter(t, s.letters[1])
		sum := sha256.Sum256([]byte(notifyEnv.Key))
		if id := first.Get("Message-ID"); id != fmt.Sprintf("<%x@h1>", sum[:16]) || again.Get("Message-ID") != id {
			t.Errorf("%s: %s, then %s", name, id, again.Get("Message-ID"))
		}
		to, err := first.AddressList("To")
		if err != nil || len(to) != 2 || to[1].Name != "Ärger" || first.Get("From") != `"Riposte" <riposte@example.org>` || first.Get("Subject") != "[HIGH] reverse shell <!channel> on h1" {
			t.Errorf("%s: %v, %v", name, first, err)
		}
		if date, err := first.Date(); err != nil || time.Since(date) > time.Minute {
			t.Errorf("%s: %v, %v", name, date, err)
		}
		if !strings.HasPrefix(body, "HIGH: reverse shell <!channel>\r\nHost: h1\r\n") {
			t.Errorf("%s: %q", name, body)
		}
		said := strings.Join(s.said, "\n")
		if !strings.Contains(said, "MAIL FROM:<riposte@example.org>") || !strings.Contains(said, "RCPT TO:<ops@example.org>\nRCPT TO:<b@example.org>") {
			t.Errorf("%s: %s", name, said)
		}
	}
}

func TestNotifyEmailFails(t *testing.T) {
	password := secretFile(t, "hunter2")
	for name, c := range map[string]struct {
		offers, with string
		refuse       map[string]string
		says         string
		unheard      string // of the client
	}{
		"no STARTTLS":    {"AUTH PLAIN", "username: bob, password_file: " + password, nil, "offers no STARTTLS", "AUTH"},
		"no AUTH":        {"STARTTLS", "username: bob, password_file: " + password, nil, "neither AUTH PLAIN nor LOGIN", "MAIL"},
		"wrong password": {"STARTTLS,AUTH PLAIN", "username: bob, password_file: " + password, map[string]string{"AUTH": "535 no \x1b[2J hunter2 aHVudGVyMg== AGJvYgBodW50ZXIy here"}, `535 "no \x1b[2J [redacted] [redacted] [redacted] here"`, "MAIL"},
		"a recipient":    {"STARTTLS", "", map[string]string{"RCPT": "550 nobody"}, `ops@example.org: 550 "nobody"`, "DATA"},
		"the message":    {"STARTTLS", "", map[string]string{"DATA": "554 spam"}, `554 "spam"`, "x"},
		"the sender":     {"STARTTLS", "", map[string]string{"MAIL": "599 you"}, `599 "you"; it would be answered the same again`, "RCPT"},
		"not yet":        {"STARTTLS", "", map[string]string{"RCPT": "451 greylisted"}, `ops@example.org: 451 "greylisted"`, "DATA"},
		"no login yet":   {"STARTTLS,AUTH PLAIN", "username: bob, password_file: " + password, map[string]string{"AUTH": "454 later"}, `454 "later"`, "MAIL"},
	} {
		s := serveMail(t, false, c.offers, c.refuse)
		n := notification(t, fmt.Sprintf(`{channel: email, smtp: "%s", ca_file: %s, from: a@example.org, to: [ops@example.org], %s}`, s.addr, s.ca, c.with), suspicious)
		forGood := len(c.refuse) > 0 && !strings.Contains(name, "yet")
		if said := wrong(t, n, forGood); !strings.Contains(said, c.says) {
			t.Errorf("%s: %s", name, said)
		}
		s.mu.Lock()
		if said := strings.Join(s.said, "\n"); strings.Contains("\n"+said, "\n"+c.unheard) || len(s.letters) > 0 {
			t.Errorf("%s: the client went on\n%s", name, said)
		}
		s.mu.Unlock()
	}
	s := serveMail(t, false, "STARTTLS", nil)
	n := notification(t, fmt.Sprintf(`{channel: email, smtp: "%s", from: a@example.org, to: [ops@example.org]}`, s.addr), suspicious)
	if _, err := tell(t, n); err == nil || !strings.Contains(err.Error(), "certificate") || len(s.letters) > 0 {
		t.Errorf("without its CA: %v", err)
	}
	s = serveMail(t, false, "", map[string]string{"greeting": "never"})
	n = notification(t, fmt.Sprintf(`{channel: email, smtp: "%s", tls: none, from: a@example.org, to: [ops@example.org]}`, s.addr), suspicious)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := tellBy(t, ctx, n); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
}

func TestNotifySpec(t *testing.T) {
	const mail = "channel: email\nsmtp: mail.example.org:587\nfrom: a@example.org\nto: [b@example.org]\n"
	for with, fault := range map[string]string{
		"channel: webhook\nurl: https://h/x?y=z":                                       "",
		"channel: webhook\nurl: http://127.0.0.1:8080/":                                "",
		"channel: webhook\nurl: http://[::1]:8080/":                                    "",
		"channel: webhook\nurl_file: /x\nsecret_env: KEY\nsubject: s\ntext: \"a\\nb\"": "",
		"channel: slack\nurl_env: HOOK":                                                "",
		mail:                                                                           "",
		mail + "tls: none":                                                             "",
		mail + "username: u\npassword_env: P":                                          "",
		"":                                                                             "channel: ",
		"channel: pager":                                                               `channel: "pager" is not one of`,
		"channel: webhook":                                                             "url: give one of",
		"channel: webhook\nurl: https://h/\nurl_env: A":                                "url: give one of",
		"channel: webhook\nurl: http://h/":                                             "in the clear",
		"channel: webhook\nurl: http://127.0.0.1.evil.example/":                        "in the clear",
		"channel: webhook\nurl: ftp://h/":                                              "want https",
		"channel: webhook\nurl: h":                                                     "want https",
		"channel: webhook\nurl: 'https:///x'":                                          "want https",
		"channel: webhook\nurl: https://u:hunter2@h/":                                  "has a user or a password",
		"channel: webhook\nurl: https://h/?token=hunter2":                              "looks like a secret",
		"channel: webhook\nurl: https://h/\nto: [a@b]":                                 "to: is of channel email",
		"channel: webhook\nurl: https://h/\nurl_flie: /x":                              "unknown field",
		"channel: webhook\nurl_file: x":                                                "url_file: ",
		"channel: webhook\nurl_env: A=b":                                               "url_env: ",
		"channel: webhook\nurl: https://h/\nsecret_env: A\nsecret_file: /b":            "give one of them",
		"channel: webhook\nurl: https://h/\nsecret: hunter2":                           "unknown field",
		"channel: webhook\nurl: https://h/\nsubject: \"a\\nBcc: c@d\"":                 "subject: want one line",
		"channel: webhook\nurl: https://h/\ntext: " + strings.Repeat("x", 9000):        "text: more than",
		"channel: slack\nurl: https://hooks.slack.com/services/x":                      "url: Slack's is a secret",
		"channel: slack\nurl_env: A\nsecret_env: B":                                    "secret_env: is of channel webhook",
		strings.Replace(mail, ":587", "", 1):                                           "smtp: ",
		strings.Replace(mail, ":587", ":0", 1):                                         "smtp: ",
		strings.Replace(mail, ":587", ":99999", 1):                                     "smtp: ",
		strings.Replace(mail, "a@example.org", `"a@example.org\r\nBcc: x@y"`, 1):       "from: ",
		strings.Replace(mail, "a@example.org", "nobody", 1):                            "from: ",
		strings.Replace(mail, "[b@example.org]", "[]", 1):                              "to: want 1 to 20",
		strings.Replace(mail, "b@example.org", `"b@example.org\r\nRCPT TO:<x@y>"`, 1):  "to: ",
		strings.Replace(mail, "b@example.org", `"b@example.org, c@example.org"`, 1):    "to: ",
		strings.Replace(mail, "b@example.org", "ä@example.org", 1):                     "to: ",
		mail + "tls: ssl":                                                              "tls: ",
		mail + "username: u":                                                           "username: goes with",
		mail + "password_env: P":                                                       "username: goes with",
		mail + "username: u\npassword_env: P\ntls: none":                               "in the clear",
		mail + "url: https://h/":                                                       "url: is of channel webhook and slack",
	} {
		spec := new(NotifySpec)
		err := yaml.UnmarshalWithOptions([]byte(with), spec, yaml.Strict())
		if err == nil {
			err = spec.Validate()
		}
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%.100s: got %v, want %q", with, err, fault)
		}
		if err == nil || strings.Contains(err.Error(), "unknown field") {
			continue
		}
		quiet(t, err.Error())
		n := &Notify{With: *spec}
		if strings.Contains(fault, "subject") {
			continue // a line feed that an alert brings is made harmless, see FuzzNotify
		}
		_, inPlace, err1 := n.Probe(t.Context(), notifyEnv)
		r, err2 := n.Apply(t.Context(), notifyEnv)
		for _, err := range []error{err1, err2} {
			if _, ok := Reason(err); !ok || inPlace || r != (Receipt{}) {
				t.Errorf("%.100s: not refused: %v", with, err)
			}
		}
	}
	kind, ok := Lookup("notify")
	if !ok || kind.Class != Idempotent || kind.Targeted || kind.Spec().Capabilities(false) != nil {
		t.Errorf("%+v", kind)
	}
}

// FuzzNotify writes messages of which an attacker has every text.
func FuzzNotify(f *testing.F) {
	f.Add("s", "t", "title")
	f.Add("a\r\nBcc: x@example.org\r\n\r\nbody", ".\r\nQUIT\r\n", "\x1b[2J\u202e雪")
	f.Add(strings.Repeat("雪", 200), strings.Repeat("=\n", 3000), strings.Repeat("\x00", 500))
	f.Add("", "", "\xff\r\n.\r\n")
	f.Fuzz(func(t *testing.T, subject, text, title string) {
		spec := NotifySpec{Channel: email, SMTP: "h:25", From: "a@example.org", To: []string{"b@example.org"}, Subject: subject, Text: text}
		n := spec.Resolve(&stream.Alert{Title: title, Description: title, Host: "", Process: &stream.Process{PID: 7, Cmdline: title}}, Seen{}).(*Notify)
		if err := n.check(); err != nil {
			t.Fatalf("an attacker keeps it from being sent: %v", err)
		}
		raw, err := n.letter(notifyEnv, time.Unix(1790000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if len(line) > 998+2 || !strings.HasSuffix(line, "\r\n") && !strings.HasSuffix(string(raw), line) {
				t.Errorf("%d bytes in a line: %q", len(line), line)
			}
			if strings.ContainsFunc(strings.TrimSuffix(line, "\r\n"), func(r rune) bool { return r > '~' || r < ' ' && r != '\t' }) {
				t.Errorf("not plain: %q", line)
			}
		}
		header, _ := letter(t, string(raw))
		if len(header) != 10 {
			t.Errorf("headers %v", header)
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject")); err != nil || strings.ContainsAny(got, "\r\n") {
			t.Errorf("subject %q, %v", got, err)
		}
		for _, channel := range []string{webhook, slack} {
			n.With.Channel = channel
			body, err := n.body(notifyEnv)
			if err != nil || !json.Valid(body) || len(body) > 256<<10 {
				t.Errorf("%s: %d bytes, %v", channel, len(body), err)
			}
			if channel == slack && strings.Contains(string(body), "<") {
				t.Errorf("%s", body)
			}
		}
	})
}
