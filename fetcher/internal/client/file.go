package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Read gets a small file whole, if it is not as it was: see source.Source.
func (c *Client) Read(ctx context.Context, r Request, max int64, since source.Mark) ([]byte, source.Mark, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errTooLong)
	defer cancel()
	switch {
	case isETag(since):
		r = r.with("If-None-Match", validator(since))
	case since != "":
		r = r.with("If-Modified-Since", string(since))
	}
	answer, err := c.Do(ctx, r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Close()
	resp := answer.Response
	switch {
	case resp.StatusCode == http.StatusNotModified && since != "":
		return nil, since, source.ErrUnchanged
	case resp.StatusCode != http.StatusOK:
		return nil, "", answer.Status()
	}
	if encoding := encodingOf(resp); encoding != "" {
		return nil, "", fault.New(fault.Encoding, fmt.Errorf("%s came with Content-Encoding %q, which was not asked for", r.Name, encoding),
			"let the server or the proxy before it send the file as it is")
	}
	if resp.ContentLength > max {
		return nil, "", source.TooLarge(r.Name, resp.ContentLength, max)
	}
	raw, err := io.ReadAll(io.LimitReader(answer, max+1))
	if err != nil {
		return nil, "", err
	}
	if int64(len(raw)) > max {
		return nil, "", source.TooLarge(r.Name, -1, max)
	}
	if r.Mark != nil {
		return raw, r.Mark(resp.Header), nil
	}
	return raw, markOfRead(resp), nil
}

// Stat asks about a file, and not for it: see source.Stater.
func (c *Client) Stat(ctx context.Context, r Request) (source.File, source.Mark, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errTooLong)
	defer cancel()
	r.Method = http.MethodHead
	answer, err := c.Do(ctx, r)
	if err != nil {
		return source.File{}, "", err
	}
	defer answer.Close()
	resp := answer.Response
	if resp.StatusCode != http.StatusOK {
		return source.File{}, "", answer.Status()
	}
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Time{}
	}
	return source.File{Name: r.Name, Size: resp.ContentLength, Modified: modified}, markOfResponse(resp), nil
}

// Open starts to get a file, from the middle where the server lets us: see
// source.Source.
func (c *Client) Open(ctx context.Context, r Request, from source.Position) (*source.Stream, error) {
	whole := r
	if from.Offset > 0 {
		r = r.with("Range", fmt.Sprintf("bytes=%d-", from.Offset))
		// A weak tag must not stand in If-Range (RFC 9110, 13.1.5); the
		// comparison below then has to do.
		if from.Mark != "" && !isWeak(from.Mark) {
			r = r.with("If-Range", validator(from.Mark))
		}
	}
	answer, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	resp := answer.Response
	s := &source.Stream{Body: answer, Size: resp.ContentLength, Mark: markOfResponse(resp)}
	if r.Mark != nil {
		s.Mark = r.Mark(resp.Header)
	}
	if encoding := encodingOf(resp); encoding != "" {
		// Some servers say so of every .gz file they keep. The bytes are
		// taken as they come, and the digest decides.
		s.Note = fmt.Sprintf("the server declared Content-Encoding %q, which was not asked for", encoding)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return s, nil
	case resp.StatusCode == http.StatusPartialContent && from.Offset > 0:
		first, last, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if ok && first == from.Offset && (from.Mark == "" || from.Mark == s.Mark) {
			s.Offset, s.Size = first, size
			answer.end(last + 1 - first)
			return s, nil
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from.Offset > 0:
	default:
		defer answer.Close()
		return nil, answer.Status()
	}
	// The file is not the one we have a part of.
	answer.Close()
	return c.Open(ctx, whole, source.Position{})
}

// with gives r with one more header.
func (r Request) with(key, value string) Request {
	r.Header = r.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set(key, value)
	return r
}

// markMax is far longer than any ETag of a server that means well.
const markMax = 512

func encodingOf(resp *http.Response) string {
	if e := resp.Header.Get("Content-Encoding"); !strings.EqualFold(e, "identity") {
		return e
	}
	return ""
}

// contentRange reads "bytes FIRST-LAST/SIZE"; SIZE may be "*", then -1.
func contentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, found := strings.Cut(s, "/")
	from, to, dashed := strings.Cut(span, "-")
	if !ok || !found || !dashed {
		return 0, 0, 0, false
	}
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			ok = false
		}
		return int64(n)
	}
	first, last, size = number(from), number(to), -1
	if total != "*" {
		size = number(total)
	}
	return first, last, size, ok && first <= last && (size < 0 || last < size)
}

// freshFor is how old a file must be for its validators to be taken for it: a
// date has whole seconds, and so have the ETags that servers make of one.
const freshFor = 2 * time.Second

// markOfRead marks a small file for the next conditional request. A file that
// is younger than its validators can tell has none, and is asked for in full
// once more. Both times are the server's, so its clock may be wrong.
func markOfRead(resp *http.Response) source.Mark {
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		return markOfResponse(resp)
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || now.Sub(modified) < freshFor {
		return ""
	}
	return markOfResponse(resp)
}

// markOfResponse prefers the ETag: dates have whole seconds only.
func markOfResponse(resp *http.Response) source.Mark {
	for _, s := range []string{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")} {
		if s != "" && len(s) <= markMax {
			return source.Mark(s)
		}
	}
	return ""
}

// validator is the part of a mark that a server knows.
func validator(m source.Mark) string {
	if !isETag(m) {
		return string(m)
	}
	tag, _, _ := strings.Cut(string(m), " ")
	return tag
}

// isETag tells a tag from a date, the two that a mark may be (RFC 9110, 8.8).
func isETag(m source.Mark) bool { return strings.HasPrefix(string(m), `"`) || isWeak(m) }
func isWeak(m source.Mark) bool { return strings.HasPrefix(string(m), "W/") }
