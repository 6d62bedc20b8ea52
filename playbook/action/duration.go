package action

import (
	"fmt"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes as text, such as "1h30m", in the JSON
// of a frozen effect.
type Duration time.Duration

// String leaves out trailing zeros: 1h, not 1h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Span is a duration of a `with` block as it is written, such as "1h30m", or a template that
// becomes one when there is an alert. What it has become is parsed as what is written is.
type Span string

// UnmarshalYAML takes a template as it stands.
func (s *Span) UnmarshalYAML(decode func(any) error) error {
	if decode((*string)(s)) == nil && strings.Contains(string(*s), "{{") {
		return nil
	}
	var d Duration
	err := decode((*time.Duration)(&d))
	*s = Span(d.String())
	return err
}

func (s Span) parse() (time.Duration, error) {
	d, err := time.ParseDuration(string(s))
	if err != nil {
		return 0, fmt.Errorf("%q is no time such as 300ms, 5s or 1h30m", clip(string(s), 40))
	}
	return d, nil
}

// Duration is 0 where the Validate of a Spec would say what is wrong.
func (s Span) Duration() Duration {
	d, _ := s.parse()
	return Duration(d)
}
