package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Document is one JSON document of a text, as it was written.
type Document struct {
	Line int    // on which it begins, from 1
	Raw  []byte // of an unfit one, the beginning at most
	Err  error  // why this cannot be a document; wraps ErrMalformed
}

// Documents splits a text into its JSON documents: one a line (NDJSON), several on a line,
// one over many lines, or the elements of an array. It finds their ends only; what is in
// them is Decode's to judge. After something that is no document it goes on with the next
// line, so that one truncated line does not swallow those behind it. It holds no more than
// one document in memory. A failure to read is the last document's Err.
func Documents(r io.Reader) iter.Seq[Document] {
	return func(yield func(Document) bool) {
		s := splitter{r: bufio.NewReaderSize(r, 64<<10), line: 1}
		if mark, _ := s.r.Peek(3); string(mark) == "\uFEFF" { // as editors on Windows put first
			_, _ = s.r.Discard(3)
		}
		for {
			doc, ok := s.next()
			if !ok || !yield(doc) {
				return
			}
		}
	}
}

type splitter struct {
	r     *bufio.Reader
	line  int  // of the byte to be read next
	array bool // within an array whose elements are the documents
	ended bool
}

// next skips to the beginning of a document and reads it.
func (s *splitter) next() (Document, bool) {
	for !s.ended {
		c, err := s.r.ReadByte()
		switch {
		case err != nil:
			s.ended = true
			return s.atEnd(err)
		case c == '\n':
			s.line++
		case c == ' ' || c == '\t' || c == '\r':
		case c == '[' && !s.array:
			s.array = true
		case c == ']' && s.array:
			s.array = false
		case c == ',' && s.array:
		default:
			return s.document(c), true
		}
	}
	return Document{}, false
}

func (s *splitter) atEnd(err error) (Document, bool) {
	switch {
	case !errors.Is(err, io.EOF):
		return Document{Line: s.line, Err: fmt.Errorf("read: %w", err)}, true
	case s.array:
		return Document{Line: s.line, Err: malformed("the array is not closed")}, true
	}
	return Document{}, false
}

// document reads on from the first byte to where the document ends. Braces and brackets
// inside strings do not count.
func (s *splitter) document(c byte) Document {
	doc := Document{Line: s.line}
	nested := c == '{' || c == '['
	depth, length, quoted, escaped := 0, 0, false, false
	for {
		if length++; length <= MaxAlertBytes {
			doc.Raw = append(doc.Raw, c)
		}
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if nested && depth == 0 {
			break
		}
		next, err := s.r.Peek(2)
		if len(next) == 0 {
			if nested && doc.Err == nil {
				doc.Err = malformed("it is not complete")
			}
			if !errors.Is(err, io.EOF) {
				doc.Err = fmt.Errorf("read: %w", err)
				s.ended = true
			}
			break
		}
		if next[0] == '\n' {
			// JSON strings do not span lines, and nobody indents an object by nothing.
			if quoted || len(next) == 2 && next[1] == '{' && doc.Raw[0] == '{' {
				doc.Err = malformed("it is not complete")
				break
			}
			if !nested {
				break
			}
			s.line++
		}
		if !nested && s.array && (next[0] == ',' || next[0] == ']') {
			break
		}
		c = next[0]
		_, _ = s.r.Discard(1) // it was peeked at
	}
	if length > MaxAlertBytes && doc.Err == nil {
		doc.Err = malformed("%d bytes, more than %d", length, MaxAlertBytes)
	}
	return doc
}
