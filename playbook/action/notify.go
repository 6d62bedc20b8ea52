package action

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"riposte/stream"
)

// NotifySpec is the `with` block of notify. It says where secrets are, never what they are:
// it is frozen in the ledger as it stands.
type NotifySpec struct {
	Channel string `yaml:"channel" json:"channel"` // webhook, slack or email

	// URL, or the file or the variable of the responder's environment that has it: of webhook
	// and slack, of which the latter's is a secret.
	URL     string `yaml:"url" json:"url,omitempty"`
	URLFile string `yaml:"url_file" json:"url_file,omitempty"`
	URLEnv  string `yaml:"url_env" json:"url_env,omitempty"`

	// Where the key is that a webhook is signed with; without one it is not signed.
	SecretFile string `yaml:"secret_file" json:"secret_file,omitempty"`
	SecretEnv  string `yaml:"secret_env" json:"secret_env,omitempty"`

	// CAFile has certificates, in PEM, that are trusted instead of the system's.
	CAFile string `yaml:"ca_file" json:"ca_file,omitempty"`

	// Of email: host:port, starttls (the default), tls or none, the sender and who gets it.
	SMTP         string   `yaml:"smtp" json:"smtp,omitempty"`
	TLS          string   `yaml:"tls" json:"tls,omitempty"`
	From         string   `yaml:"from" json:"from,omitempty"`
	To           []string `yaml:"to" json:"to,omitempty"`
	Username     string   `yaml:"username" json:"username,omitempty"`
	PasswordFile string   `yaml:"password_file" json:"password_file,omitempty"`
	PasswordEnv  string   `yaml:"password_env" json:"password_env,omitempty"`

	// Subject of an email, and title of the others; Text is the message. Empty, they are made
	// of the alert.
	Subject string `yaml:"subject" json:"subject,omitempty" template:"yes"`
	Text    string `yaml:"text" json:"text,omitempty" template:"yes"`
}

// The channels.
const (
	webhook = "webhook"
	slack   = "slack"
	email   = "email"
)

// How an email travels.
const (
	startTLS = "starttls"
	plainTLS = "tls" // from the first byte
	noTLS    = "none"
)

const (
	maxURL        = 2048
	maxSubject    = 256     // bytes
	maxText       = 8 << 10 // bytes
	maxRecipients = 20
	maxSecret     = 64 << 10 // bytes of a file
)

// Validate implements Spec.
func (s *NotifySpec) Validate() error {
	if !slices.Contains([]string{webhook, slack, email}, s.Channel) {
		return fmt.Errorf("channel: %q is not one of %s, %s, %s", s.Channel, webhook, slack, email)
	}
	if err := s.misplaced(); err != nil {
		return err
	}
	for _, f := range [][2]string{
		{"url_file", s.URLFile}, {"secret_file", s.SecretFile}, {"password_file", s.PasswordFile}, {"ca_file", s.CAFile},
	} {
		if f[1] != "" && (!filepath.IsAbs(f[1]) || len(f[1]) > maxPath || strings.Contains(f[1], "\x00")) {
			return fmt.Errorf("%s: %q is not an absolute path", f[0], clip(f[1], 80))
		}
	}
	for _, f := range [][2]string{{"url_env", s.URLEnv}, {"secret_env", s.SecretEnv}, {"password_env", s.PasswordEnv}} {
		if f[1] != "" && !variableForm.MatchString(f[1]) {
			return fmt.Errorf("%s: %q is not the name of a variable", f[0], clip(f[1], 80))
		}
	}
	switch {
	case len(s.Subject) > maxSubject || strings.ContainsAny(s.Subject, "\r\n\x00"):
		return fmt.Errorf("subject: want one line of at most %d bytes", maxSubject)
	case len(s.Text) > maxText || strings.Contains(s.Text, "\x00"):
		return fmt.Errorf("text: more than %d bytes, or a NUL", maxText)
	case s.SecretFile != "" && s.SecretEnv != "":
		return errors.New("secret_file and secret_env: give one of them")
	case s.Channel == email:
		return s.validateEmail()
	}
	return s.validateURL()
}

// misplaced finds fields of another channel.
func (s *NotifySpec) misplaced() error {
	web, mail := []string{webhook, slack}, []string{email}
	for _, f := range []struct {
		name  string
		given bool
		of    []string
	}{
		{"url", s.URL != "", web}, {"url_file", s.URLFile != "", web}, {"url_env", s.URLEnv != "", web},
		{"secret_file", s.SecretFile != "", web[:1]}, {"secret_env", s.SecretEnv != "", web[:1]},
		{"smtp", s.SMTP != "", mail}, {"tls", s.TLS != "", mail}, {"from", s.From != "", mail}, {"to", s.To != nil, mail},
		{"username", s.Username != "", mail}, {"password_file", s.PasswordFile != "", mail}, {"password_env", s.PasswordEnv != "", mail},
	} {
		if f.given && !slices.Contains(f.of, s.Channel) {
			return fmt.Errorf("%s: is of channel %s, not of %s", f.name, strings.Join(f.of, " and "), s.Channel)
		}
	}
	return nil
}

func (s *NotifySpec) validateURL() error {
	given := 0
	for _, where := range []string{s.URL, s.URLFile, s.URLEnv} {
		if where != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("url: give one of url, url_file and url_env")
	case s.URL == "":
		return nil
	case s.Channel == slack:
		return errors.New("url: Slack's is a secret, and all that stands here goes into the ledger; put it in a file and name that in url_file")
	}
	u, err := parseURL(s.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	for name := range u.Query() {
		if secretName(name) {
			return fmt.Errorf("url: has what looks like a secret (%s), and all that stands here goes into the ledger; put it in a file and name that in url_file", clip(strconv.Quote(name), 80))
		}
	}
	if u.User != nil {
		return errors.New("url: has a user or a password, and all that stands here goes into the ledger; put it in a file and name that in url_file")
	}
	return nil
}

// parseURL reads a URL that a message may be posted to. Its errors do not quote it.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxURL || u.Hostname() == "" || u.Opaque != "" || strings.ContainsAny(text, " \t\r\n\x00"):
		return nil, fmt.Errorf("want https://HOST/..., of at most %d bytes", maxURL)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, errors.New("http would send the alert in the clear: want https; http only to this host itself, by a loopback address")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("want https://")
	}
	return u, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (s *NotifySpec) validateEmail() error {
	host, port, err := net.SplitHostPort(s.SMTP)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" || len(host) > 253 || strings.ContainsAny(host, " \r\n\x00/@") {
		return fmt.Errorf("smtp: %q: want HOST:PORT, such as mail.example.org:587", clip(s.SMTP, 80))
	}
	if _, err := parseMailbox(s.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if len(s.To) == 0 || len(s.To) > maxRecipients {
		return fmt.Errorf("to: want 1 to %d addresses", maxRecipients)
	}
	for _, to := range s.To {
		if _, err := parseMailbox(to); err != nil {
			return fmt.Errorf("to: %w", err)
		}
	}
	switch password := s.PasswordFile != "" || s.PasswordEnv != ""; {
	case s.TLS != "" && s.TLS != startTLS && s.TLS != plainTLS && s.TLS != noTLS:
		return fmt.Errorf("tls: %q is not one of %s, %s, %s", clip(s.TLS, 80), startTLS, plainTLS, noTLS)
	case s.PasswordFile != "" && s.PasswordEnv != "":
		return errors.New("password_file and password_env: give one of them")
	case password != (s.Username != ""):
		return errors.New("username: goes with password_file or password_env")
	case len(s.Username) > maxField || strings.ContainsAny(s.Username, "\r\n\x00"):
		return fmt.Errorf("username: want one line of at most %d bytes", maxField)
	case password && s.TLS == noTLS && !loopback(host):
		return errors.New("tls: none would send the password in the clear; want starttls or tls")
	}
	return nil
}

// parseMailbox reads one address, with or without a name.
func parseMailbox(text string) (*mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil || len(text) > 320 || strings.ContainsAny(text, "\r\n\x00") || strings.ContainsFunc(a.Address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%q is not one mail address", clip(text, 80))
	}
	return a, nil
}

// Resolve implements Spec. There is always somebody to tell.
func (s *NotifySpec) Resolve(a *stream.Alert, seen Seen) Effect {
	n := &Notify{With: *s, About: about(a)}
	n.With.Subject, n.With.Text = clip(s.Subject, maxSubject-len("...")), clip(s.Text, maxText-len("..."))
	return n
}

// Tame implements Tamer.
func (s *NotifySpec) Tame() {
	s.Subject = clip(printable(s.Subject), maxSubject-len("..."))
	s.Text = clip(strings.ReplaceAll(s.Text, "\x00", ""), maxText-len("..."))
}

// Capabilities implements Spec.
func (s *NotifySpec) Capabilities(ownUID bool) []Capability { return nil }

// Notify tells somebody about an alert.
type Notify struct {
	With  NotifySpec `json:"with"`
	About About      `json:"about"`
}

// Targets implements Effect. Messages need no turns.
func (n *Notify) Targets() []string { return nil }

// Describe implements Effect. It names no more of a URL than its host.
func (n *Notify) Describe() string {
	switch w := n.With; {
	case w.Channel == email:
		return printable(clip(fmt.Sprintf("notify %s by email", strings.Join(w.To, ", ")), 200))
	case w.Channel == slack:
		return "notify by slack"
	case w.URL != "":
		if u, err := parseURL(w.URL); err == nil {
			return printable(clip("notify "+u.Host+" by webhook", 200))
		}
	}
	return "notify by webhook"
}

// check refuses what Validate would not have let through: the plan may be another's. A
// subject that a field of the alert has broken into lines is made one line later, not
// refused: an attacker could otherwise keep the message from being sent.
func (n *Notify) check() error {
	with := n.With
	with.Subject = printable(with.Subject)
	with.Subject = with.Subject[:min(len(with.Subject), maxSubject)]
	with.Text = strings.ReplaceAll(with.Text, "\x00", "")
	if err := with.Validate(); err != nil {
		return Refuse("%v", err)
	}
	return nil
}

// Probe implements Effect. Whether somebody was told cannot be seen: it is never in place.
// Whether the secrets can be read can, so that an operator who observes learns of it in time.
func (n *Notify) Probe(ctx context.Context, env Env) (Receipt, bool, error) {
	if err := n.check(); err != nil {
		return Receipt{}, false, err
	}
	_, err := n.secrets()
	return Receipt{}, false, err
}

// Apply implements Effect.
func (n *Notify) Apply(ctx context.Context, env Env) (Receipt, error) {
	if err := n.check(); err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, fmt.Errorf("%s: not begun: %w", n.Describe(), context.Cause(ctx))
	}
	secrets, err := n.secrets()
	if err != nil {
		return Receipt{}, fmt.Errorf("%s: %w", n.Describe(), err)
	}
	var said string
	if n.With.Channel == email {
		said, err = n.mail(ctx, env, secrets)
	} else {
		said, err = n.post(ctx, env, secrets)
	}
	if err == nil {
		return Receipt{Notified, secrets.hide(said)}, nil
	}
	answer, reply := new(badStatus), new(textproto.Error)
	web, mail := errors.As(err, &answer), errors.As(err, &reply)
	reason := secrets.hide(err.Error()) // the text alone: what the error wraps may have the URL
	switch {
	case web && answer.permanent(), mail && reply.Code/100 == 5: // RFC 5321 4.2.1
		return Receipt{Failed, fmt.Sprintf("%s: %s; it would be answered the same again", n.Describe(), reason)}, nil
	case ctx.Err() != nil:
		return Receipt{}, fmt.Errorf("%s: %w: %s", n.Describe(), context.Cause(ctx), reason)
	}
	return Receipt{}, &Later{fmt.Errorf("%s: %s", n.Describe(), reason), answer.after}
}

// secrets are what a notification needs that nobody may read later.
type secrets struct{ url, key, username, password string }

// secrets reads them, each time anew: a password that was changed counts at once.
func (n *Notify) secrets() (s secrets, err error) {
	w := n.With
	if s.url = w.URL; w.Channel != email && s.url == "" {
		if s.url, err = readSecret("url", w.URLFile, w.URLEnv); err != nil {
			return secrets{}, err
		}
		if _, err := parseURL(s.url); err != nil {
			return secrets{}, fmt.Errorf("the URL in %s%s: %w", w.URLFile, w.URLEnv, err)
		}
	}
	if w.SecretFile != "" || w.SecretEnv != "" {
		if s.key, err = readSecret("secret", w.SecretFile, w.SecretEnv); err != nil {
			return secrets{}, err
		}
	}
	if s.username = w.Username; s.username != "" {
		if s.password, err = readSecret("password", w.PasswordFile, w.PasswordEnv); err != nil {
			return secrets{}, err
		}
	}
	return s, nil
}

// hide takes the secrets out of what others wrote, and makes it printable and short. A mail
// server may repeat what it was sent, which is in base64.
func (s secrets) hide(text string) string {
	for _, secret := range []string{s.url, s.key, s.password} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	if s.password != "" {
		for _, sent := range []string{s.password, "\x00" + s.username + "\x00" + s.password} {
			text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString([]byte(sent)), "[redacted]")
		}
	}
	if u, err := url.Parse(s.url); err == nil {
		if path := u.RequestURI(); len(path) > 1 {
			text = strings.ReplaceAll(text, path, "/[redacted]")
		}
	}
	return printable(clip(string(redactURLs([]byte(text))), 500))
}

// readSecret reads a secret from a file or a variable, without the line feed at its end.
func readSecret(what, file, env string) (string, error) {
	if env != "" {
		secret := strings.TrimRight(os.Getenv(env), "\r\n")
		if secret == "" {
			return "", fmt.Errorf("%s_env: there is no variable %s in the responder's environment, or it is empty", what, env)
		}
		return secret, nil
	}
	// Secrets are often links, but what would have us wait is none.
	if st, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("%s_file: %w", what, err)
	} else if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s_file: %s is not a regular file", what, file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("%s_file: %w", what, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	secret := strings.TrimRight(string(raw), "\r\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("%s_file: %w", what, err)
	case secret == "" || len(raw) > maxSecret:
		return "", fmt.Errorf("%s_file: %s is empty, or has more than %d bytes", what, file, maxSecret)
	}
	return secret, nil
}

// tlsConfig is for a server of that name, whose certificate is always verified.
func (n *Notify) tlsConfig(server string) (*tls.Config, error) {
	config := &tls.Config{ServerName: server, MinVersion: tls.VersionTLS12}
	if n.With.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(n.With.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: no certificate in PEM in %s", n.With.CAFile)
	}
	return config, nil
}

// subject is one printable line.
func (n *Notify) subject(env Env) string {
	s := n.With.Subject
	if s == "" {
		about := n.About.on(env)
		s = fmt.Sprintf("[%s] %s on %s", orText(about.Level, "alert"), orText(about.Title, "no title"), about.Host)
	}
	return printable(clip(s, maxSubject))
}

// text is the message: lines that hold nothing a terminal would obey.
func (n *Notify) text(env Env) string {
	if n.With.Text != "" {
		return printableLines(n.With.Text)
	}
	about := n.About.on(env)
	lines := []string{fmt.Sprintf("%s: %s", orText(about.Level, "Alert"), orText(about.Title, "no title"))}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, name+": "+clip(value, 500))
		}
	}
	add("Host", about.Host)
	add("Rule", strings.TrimSpace(about.RuleID+" "+about.RuleName))
	p := about.Process
	if p == nil {
		p = &stream.Process{}
	}
	if about.PID != nil {
		add("Process", strings.TrimSpace(fmt.Sprintf("PID %d %s %s", *about.PID, p.Name, p.Exe)))
	}
	add("Command line", p.Cmdline)
	add("Address", about.SourceIP)
	add("Seen", about.Timestamp)
	add("Description", about.Description)
	add("Step", env.Key)
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n") + "\n"
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// printableLines is printable, but for line feeds and tabs.
func printableLines(s string) string {
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if r == '\n' || r == '\t' {
			out.WriteRune(r)
		} else {
			out.WriteString(printable(string(r)))
		}
	}
	return out.String()
}
