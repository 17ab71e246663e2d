package metrics

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"time"
)

const (
	requestMax  = 16 << 10
	requestTime = 10 * time.Second
)

// deadliner is what a connection has and a pipe may not.
type deadliner interface{ SetDeadline(time.Time) error }

// Answer answers one request that came over a connection, and closes nothing. Who
// does not ask in time, or does not take the answer, gets an error of ours.
func Answer(conn io.ReadWriter, read func() Host) error {
	if d, ok := conn.(deadliner); ok {
		if err := d.SetDeadline(time.Now().Add(requestTime)); err != nil {
			return err
		}
	}
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, requestMax)))
	if err != nil {
		return err
	}
	var body bytes.Buffer
	answer := &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true,
		Header: http.Header{"Content-Type": {ContentType}},
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		answer.StatusCode = http.StatusMethodNotAllowed
		answer.Header.Set("Allow", "GET, HEAD")
	case r.URL.Path != "/" && r.URL.Path != "/metrics":
		answer.StatusCode = http.StatusNotFound
	default:
		if err := Write(&body, read()); err != nil {
			return err
		}
	}
	answer.ContentLength = int64(body.Len())
	answer.Body = io.NopCloser(&body)
	return answer.Write(conn)
}
