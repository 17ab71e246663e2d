package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sdjournal "github.com/coreos/go-systemd/v22/journal"
)

// Socket is where journald takes native messages (systemd-journald.service(8)).
const Socket = "/run/systemd/journal/socket"

// sendTimeout bounds the wait for a journald that does not read: a daemon
// that guards services must not hang on its own log line.
const sendTimeout = time.Second

// Options say how a handler writes. The zero value is right for a daemon.
type Options struct {
	// Level is the least that is written. Default slog.LevelInfo.
	Level slog.Leveler
	// Identifier is SYSLOG_IDENTIFIER. Default "upgraderd".
	Identifier string
	// Socket is journald's native socket. Empty: decide by JOURNAL_STREAM
	// whether stderr is the journal, and use [Socket] if it is.
	Socket string
}

// Handler is a slog.Handler for the journal or for a terminal. It may be
// used by several goroutines at once. Close ends it.
type Handler struct {
	*sink
	prefix string // groups, each with its underscore
	attrs  []field
	target string
	verify string
}

// sink is what all handlers made from one share.
type sink struct {
	level      slog.Leveler
	identifier string
	mu         sync.Mutex
	text       io.Writer
	conn       *net.UnixConn // nil: text only
	addr       *net.UnixAddr
	streamed   bool // text goes to journald's stream, so a <N> prefix tells the level
}

type field struct {
	name  string // journal field
	key   string // as the caller spelled it, with groups
	value string // for the field
	shown string // for a person
}

var _ slog.Handler = (*Handler)(nil)

// NewHandler writes to the journal where stderr is the journal, else text to
// stderr. A journal that cannot be reached is not an error: the lines go to
// stderr then, which systemd reads too.
func NewHandler(stderr io.Writer, o Options) *Handler {
	s := &sink{level: o.Level, identifier: o.Identifier, text: stderr}
	if s.level == nil {
		s.level = slog.LevelInfo
	}
	if s.identifier == "" {
		s.identifier = "upgraderd"
	}
	socket := o.Socket
	if socket == "" && stderr == io.Writer(os.Stderr) {
		// A JOURNAL_STREAM that does not parse means the same as none.
		if is, err := sdjournal.StderrIsJournalStream(); err == nil && is {
			socket = Socket
			s.streamed = true
		}
	}
	if socket == "" {
		return &Handler{sink: s}
	}
	// Unconnected, so that a restarted journald is found again.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return &Handler{sink: s}
	}
	s.conn = conn
	s.addr = &net.UnixAddr{Name: socket, Net: "unixgram"}
	return &Handler{sink: s}
}

// Target is where lines go, in the words of org.freedesktop.LogControl1(5).
func (h *Handler) Target() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil || h.streamed {
		return "journal"
	}
	return "console"
}

// Close closes the socket to the journal; lines written later go to stderr.
func (h *Handler) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return nil
	}
	err := h.conn.Close()
	h.conn = nil
	return err
}

// Enabled reports whether a record of that level is written.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.level.Level()
}

// WithAttrs gives a handler whose every line carries attrs.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		c.add(&c.attrs, c.prefix, a)
	}
	return &c
}

// WithGroup gives a handler whose later attributes are named group_name.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix = h.prefix + name + "_"
	return &c
}

// Handle writes one record. It never fails: there is nobody to tell.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	line := *h
	line.attrs = slices.Clone(h.attrs)
	id := ""
	own := len(line.attrs)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == keyID {
			id = a.Value.Resolve().String()
			return true
		}
		line.add(&line.attrs, line.prefix, a)
		return true
	})
	message := line.sentence(r.Message, id != "", line.attrs[own:])
	h.write(r.Level, message, id, line.attrs)
	return nil
}

// add appends a, flattened, and notes what the sentence opens with.
func (h *Handler) add(to *[]field, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, m := range v.Group() {
			h.add(to, prefix, m)
		}
		return
	}
	if a.Key == "" {
		return
	}
	key := prefix + a.Key
	f := field{name: fieldName(key), key: key, shown: Clean(display(v))}
	f.value = f.shown
	if v.Kind() == slog.KindDuration {
		f.name += "_USEC"
		f.value = strconv.FormatInt(v.Duration().Microseconds(), 10)
	}
	switch key {
	case "target":
		h.target = f.value
	case "verify":
		h.verify = f.value
	}
	*to = append(*to, f)
}

// sentence is the MESSAGE. An event's sentence says all it has to; any other
// line shows its own attributes behind it.
func (h *Handler) sentence(msg string, event bool, attrs []field) string {
	var b strings.Builder
	if h.target != "" {
		b.WriteString(h.target)
		if h.verify == "no" {
			b.WriteString(" (Verify=no)")
		}
		b.WriteString(": ")
	}
	b.WriteString(Clean(msg))
	if event {
		return b.String()
	}
	for _, f := range attrs {
		if f.key == "target" || f.key == "verify" {
			continue
		}
		b.WriteByte(' ')
		b.WriteString(f.key)
		b.WriteByte('=')
		if strings.ContainsAny(f.shown, ` "=`) || f.shown == "" {
			b.WriteString(strconv.Quote(f.shown))
		} else {
			b.WriteString(f.shown)
		}
	}
	return b.String()
}

func (s *sink) write(level slog.Level, message, id string, fields []field) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		err := s.send(level, message, id, fields)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return // a journald that hangs also hangs on stderr
		}
	}
	line := message + "\n"
	if s.streamed {
		line = "<" + strconv.Itoa(priority(level)) + ">" + line // sd-daemon(3)
	}
	_, _ = io.WriteString(s.text, line) // stderr closed: the work goes on
}

// send writes one native datagram. Values hold no newline (Clean), so the
// short form KEY=value is always right.
func (s *sink) send(level slog.Level, message, id string, fields []field) error {
	b := make([]byte, 0, 512)
	b = appendField(b, "MESSAGE", message)
	b = appendField(b, "PRIORITY", strconv.Itoa(priority(level)))
	b = appendField(b, "SYSLOG_IDENTIFIER", s.identifier)
	if id != "" {
		b = appendField(b, "MESSAGE_ID", id)
	}
	for _, f := range fields {
		b = appendField(b, f.name, f.value)
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := s.conn.WriteToUnix(b, s.addr)
	return err
}

// appendField guards the wire: a newline in a value switches to the form
// with a length, whatever the callers promise.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		b = append(b, '=')
		b = append(b, value...)
		return append(b, '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, value...)
	return append(b, '\n')
}

// fieldName makes UPGRADERD_NAME of any key: journald takes [A-Z0-9_], at
// most 64 bytes (systemd.journal-fields(7)).
func fieldName(key string) string {
	const prefix = "UPGRADERD_"
	const most = 64 - len("_USEC")
	b := make([]byte, 0, len(prefix)+len(key))
	b = append(b, prefix...)
	for i := range len(key) {
		switch c := key[i]; {
		case len(b) == most:
			return string(b)
		case c >= 'a' && c <= 'z':
			b = append(b, c-'a'+'A')
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b = append(b, c)
		default:
			b = append(b, '_')
		}
	}
	return string(b)
}

// priority maps a level to syslog(3).
func priority(l slog.Level) int {
	switch {
	case l >= LevelCritical:
		return 2
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= LevelNotice:
		return 5
	case l >= slog.LevelInfo:
		return 6
	default:
		return 7
	}
}
