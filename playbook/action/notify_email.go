package action

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"os"
	"strings"
	"time"
)

// mail sends the message and returns which server took it. When ctx ends the connection is
// closed, whatever is under way.
func (n *Notify) mail(ctx context.Context, env Env, s secrets) (took string, err error) {
	raw, err := n.letter(env, time.Now())
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(n.With.SMTP)
	if err != nil {
		return "", err
	}
	config, err := n.tlsConfig(host)
	if err != nil {
		return "", err
	}
	dialed, err := new(net.Dialer).DialContext(ctx, "tcp", n.With.SMTP)
	if err != nil {
		return "", err
	}
	defer dialed.Close()
	defer context.AfterFunc(ctx, func() { dialed.Close() })()
	conn := dialed
	if n.With.TLS == plainTLS {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return "", err
		}
		conn = secure
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return "", err
	}
	if err := n.greet(client, config, host, s); err != nil {
		return "", err
	}
	if err := n.hand(client, raw); err != nil {
		return "", err
	}
	_ = client.Quit() // it was taken, whatever comes after
	return n.With.SMTP + " took it", nil
}

// greet brings the connection to where mail may be sent.
func (n *Notify) greet(client *smtp.Client, config *tls.Config, host string, s secrets) error {
	name, err := os.Hostname()
	if err != nil || name == "" || strings.ContainsAny(name, " \r\n") {
		name = "localhost"
	}
	if err := client.Hello(name); err != nil {
		return err
	}
	if n.With.TLS == startTLS || n.With.TLS == "" {
		if ok, _ := client.Extension("STARTTLS"); !ok {
			return errors.New("the server offers no STARTTLS, and nothing is sent in the clear; tls: none would")
		}
		if err := client.StartTLS(config); err != nil {
			return err
		}
	}
	if n.With.Username == "" {
		return nil
	}
	_, offered := client.Extension("AUTH")
	if strings.Contains(" "+offered+" ", " PLAIN ") {
		return client.Auth(smtp.PlainAuth("", n.With.Username, s.password, host))
	}
	if strings.Contains(" "+offered+" ", " LOGIN ") {
		return client.Auth(&login{n.With.Username, s.password, host})
	}
	return fmt.Errorf("the server offers neither AUTH PLAIN nor LOGIN but %q", clip(offered, 80))
}

// hand gives the server one message for all recipients.
func (n *Notify) hand(client *smtp.Client, raw []byte) error {
	from, err := parseMailbox(n.With.From)
	if err != nil {
		return err
	}
	if err := client.Mail(from.Address); err != nil {
		return err
	}
	for _, text := range n.With.To {
		to, err := parseMailbox(text)
		if err != nil {
			return err
		}
		if err := client.Rcpt(to.Address); err != nil {
			return fmt.Errorf("%s: %w", to.Address, err)
		}
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Close() // the server's answer
}

// letter is the message as it travels. Its Message-ID is the step's, so that a mail server or
// a reader can tell a repetition.
func (n *Notify) letter(env Env, now time.Time) ([]byte, error) {
	from, err := parseMailbox(n.With.From)
	if err != nil {
		return nil, err
	}
	var to []string
	for _, text := range n.With.To {
		a, err := parseMailbox(text)
		if err != nil {
			return nil, err
		}
		to = append(to, (&mail.Address{Name: a.Name, Address: a.Address}).String())
	}
	host, _, _ := strings.Cut(env.Key, "/")
	sum := sha256.Sum256([]byte(env.Key))
	var out bytes.Buffer
	for _, h := range [][2]string{
		{"From", from.String()}, {"To", strings.Join(to, ",\r\n ")},
		{"Subject", strings.ReplaceAll(mime.QEncoding.Encode("utf-8", n.subject(env)), "?= =?", "?=\r\n =?")},
		{"Date", now.Format(time.RFC1123Z)},
		{"Message-ID", "<" + hex.EncodeToString(sum[:16]) + "@" + orText(host, "riposte") + ">"},
		{"X-Riposte-Key", env.Key},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: nobody answers that he is on holiday
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		if strings.ContainsAny(strings.ReplaceAll(h[1], "\r\n ", ""), "\r\n\x00") {
			return nil, Refuse("%s: a line of its own in a header", h[0])
		}
		fmt.Fprintf(&out, "%s: %s\r\n", h[0], h[1])
	}
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	if _, err := w.Write([]byte(strings.ReplaceAll(n.text(env), "\n", "\r\n"))); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// login is AUTH LOGIN, which some servers offer alone. It says nothing in the clear, unless to
// this host itself.
type login struct{ username, password, host string }

func (l *login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS && !loopback(l.host) {
		return "", nil, errors.New("the connection is not encrypted")
	}
	return "LOGIN", nil, nil
}

func (l *login) Next(asked []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	switch what := strings.ToLower(strings.TrimSpace(string(asked))); {
	case strings.HasPrefix(what, "user"):
		return []byte(l.username), nil
	case strings.HasPrefix(what, "pass"):
		return []byte(l.password), nil
	}
	return nil, errors.New("the server asks for neither a user nor a password")
}
