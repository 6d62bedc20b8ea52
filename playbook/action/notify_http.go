package action

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"riposte/stream"
)

// message is what a webhook gets. It is the same, byte for byte, with every repetition.
type message struct {
	Key      string `json:"key"` // of the step; also in the header Idempotency-Key
	AlertID  string `json:"alert_id"`
	Host     string `json:"host"`
	Group    string `json:"group"`
	Playbook string `json:"playbook"`
	Step     string `json:"step"`
	Subject  string `json:"subject"`
	Text     string `json:"text"`

	Level       string          `json:"level,omitempty"`
	Title       string          `json:"title,omitempty"`
	Description string          `json:"description,omitempty"`
	Rule        string          `json:"rule,omitempty"` // ID
	RuleName    string          `json:"rule_name,omitempty"`
	Source      string          `json:"source,omitempty"`
	Timestamp   string          `json:"timestamp,omitempty"`
	PID         *int64          `json:"actionable_pid,omitempty"`
	SourceIP    string          `json:"source_ip,omitempty"`
	Process     *stream.Process `json:"process,omitempty"`
}

// body is what is posted.
func (n *Notify) body(env Env) ([]byte, error) {
	if n.With.Channel == slack {
		text := n.text(env)
		if n.With.Text != "" && n.With.Subject != "" {
			text = n.subject(env) + "\n" + text
		}
		return json.Marshal(map[string]string{"text": slackText(text)})
	}
	a := n.About.on(env)
	m := message{
		Key: env.Key, AlertID: env.AlertID, Host: a.Host, Subject: n.subject(env), Text: n.text(env),
		Level: a.Level, Title: a.Title, Description: a.Description, Rule: a.RuleID, RuleName: a.RuleName,
		Source: a.Source, Timestamp: a.Timestamp, PID: a.PID, SourceIP: a.SourceIP, Process: a.Process,
	}
	if parts := strings.Split(env.Key, "/"); len(parts) == 5 { // see stream.StepKey
		m.Group, m.Playbook, m.Step = parts[1], parts[3], parts[4]
	}
	return json.Marshal(m)
}

// slackText takes from a text what Slack would make links, or calls to everybody, of.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// post posts the message and returns what the server said of it.
func (n *Notify) post(ctx context.Context, env Env, s secrets) (string, error) {
	body, err := n.body(env)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return "", errors.New("the URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "riposte")
	if n.With.Channel == webhook {
		req.Header.Set("Idempotency-Key", env.Key)
		now := strconv.FormatInt(time.Now().Unix(), 10)
		req.Header.Set("X-Riposte-Timestamp", now)
		if s.key != "" {
			req.Header.Set("X-Riposte-Signature", "sha256="+sign(s.key, now, body))
		}
	}
	config, err := n.tlsConfig("") // the URL's host
	if err != nil {
		return "", err
	}
	client := http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config,
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		// A message that was sent elsewhere, or turned into a GET, has not been taken.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if failed := new(url.Error); errors.As(err, &failed) { // it quotes the URL
			err = failed.Err
		}
		return "", err
	}
	defer resp.Body.Close()
	bad := &badStatus{code: resp.StatusCode}
	switch bad.code / 100 {
	case 2:
		return fmt.Sprintf("%s took it, HTTP status %d", req.URL.Host, bad.code), nil
	case 3:
		bad.said = ": redirects are not followed; give the final URL"
		return "", bad
	}
	if bad.code == http.StatusTooManyRequests || bad.code == http.StatusServiceUnavailable {
		bad.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	// For a person. Much more is read than shown: a secret that is cut in two is not found.
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if text := strings.TrimSpace(string(answer)); text != "" {
		bad.said = ": " + strconv.Quote(clip(s.hide(text), 200))
	}
	return "", bad
}

const maxAnswer = 64 << 10 // bytes of an answer that are read

// badStatus is the answer of a web server that did not take the message.
type badStatus struct {
	code  int
	said  string
	after time.Duration // how long it asks to be left alone
}

func (b *badStatus) Error() string { return fmt.Sprintf("HTTP status %d%s", b.code, b.said) }

// permanent says that the same message would be answered the same again.
func (b *badStatus) permanent() bool {
	switch b.code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return b.code/100 == 4
}

// retryAfter reads the header of that name, seconds or a date (RFC 9110, 10.2.3). What is
// neither is as if it was not there.
func retryAfter(text string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(text, 10, 31)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the greatest there is
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, date.Sub(now))
}

// sign is the HMAC-SHA256 of timestamp "." body: a receiver that also looks at the timestamp
// cannot be told an old message again.
func sign(key, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
