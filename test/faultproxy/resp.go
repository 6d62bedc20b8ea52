package faultproxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

var errFraming = errors.New("not RESP")

const (
	longestBulk = 512 << 20 // Redis' own bound
	deepest     = 64
)

// frame reads one request or reply, of RESP2 or RESP3, and returns its bytes as they are.
// An attribute belongs to the reply that it precedes.
func frame(r *bufio.Reader) ([]byte, error) {
	var raw bytes.Buffer
	err := copyFrame(&raw, r, 0)
	return raw.Bytes(), err
}

func copyFrame(raw *bytes.Buffer, r *bufio.Reader, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%w: nested deeper than %d", errFraming, deepest)
	}
	line, err := r.ReadBytes('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	raw.Write(line)
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return fmt.Errorf("%w: line %.40q", errFraming, line)
	}
	kind, text := line[0], line[1:len(line)-2]
	switch kind {
	case '+', '-', ':', '_', '#', ',', '(':
		return nil
	case '$', '=', '!':
		n, err := length(text, longestBulk)
		if err != nil || n < 0 {
			return err
		}
		if _, err := io.CopyN(raw, r, n+2); err != nil {
			return io.ErrUnexpectedEOF
		}
		if !bytes.HasSuffix(raw.Bytes(), []byte("\r\n")) {
			return fmt.Errorf("%w: string without its end", errFraming)
		}
		return nil
	case '*', '~', '>', '%', '|':
		n, err := length(text, 1<<20)
		if err != nil {
			return err
		}
		switch kind {
		case '%':
			n *= 2
		case '|':
			n = n*2 + 1
		}
		for range max(n, 0) {
			if err := copyFrame(raw, r, depth+1); err != nil {
				return unfinished(err)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: line %.40q", errFraming, line)
}

// length is that of a string or an array; -1 is RESP2's null.
func length(text []byte, most int64) (int64, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < -1 || n > most {
		return 0, fmt.Errorf("%w: length %.40q", errFraming, text)
	}
	return n, nil
}

// unfinished is the error in the middle of a frame.
func unfinished(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// request reads one request: its bytes, and the words it is made of.
func request(r *bufio.Reader) (raw []byte, words []string, err error) {
	if raw, err = frame(r); err != nil {
		return nil, nil, err
	}
	head, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	n, err := strconv.Atoi(string(head[1:]))
	if head[0] != '*' || err != nil || n < 1 {
		return nil, nil, fmt.Errorf("%w: request %.40q", errFraming, raw)
	}
	for range n {
		head, after, _ := bytes.Cut(rest, []byte("\r\n"))
		size, err := strconv.Atoi(string(head[1:]))
		if head[0] != '$' || err != nil || size < 0 {
			return nil, nil, fmt.Errorf("%w: word %.40q of a request", errFraming, head)
		}
		words = append(words, string(after[:size]))
		rest = after[size+2:]
	}
	return raw, words, nil
}
