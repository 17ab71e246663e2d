package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write catalog and guide anew")

const catalogFile = "../../units/catalog/upgraderd.catalog"

func TestFilesAreTheTable(t *testing.T) {
	for file, write := range map[string]func(io.Writer) error{
		catalogFile:                       WriteCatalog,
		"../../docs/what-happens-when.md": WriteGuide,
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(have), b.String()); diff != "" {
			t.Errorf("%s differs from the event table (-file +table); write it anew with -update:\n%s", file, diff)
		}
	}
}

func TestTable(t *testing.T) {
	ids := map[string]string{}
	hex := regexp.MustCompile(`^[0-9a-f]{32}$`)
	known := map[string]bool{}
	for _, k := range []string{"targets", "error", "to", "from", "reason", "took", "bytes", "result", "unit", "swap", "window", "release", "phase",
		"pid", "exit", "role", "limit", "workers", "signal", "count", "hint", "holder", "path", "floor", "order", "wish", "progress", "dependent", "name", "beside"} {
		known[k] = true
	}
	for _, d := range Events() {
		if d.Name == "" || !hex.MatchString(d.ID) || d.Subject == "" || d.Text == "" {
			t.Errorf("event %+v is incomplete", d)
		}
		if other := ids[d.ID]; other != "" {
			t.Errorf("%s and %s share a MESSAGE_ID", d.Name, other)
		}
		ids[d.ID] = d.Name
		for _, m := range regexp.MustCompile(`\{(\w*)\}`).FindAllStringSubmatch(d.Text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: {%s} is no attribute that anybody gives", d.Name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`@(\w*)@`).FindAllStringSubmatch(d.Subject+d.Body, -1) {
			key := strings.ToLower(strings.TrimPrefix(m[1], "UPGRADERD_"))
			if !known[key] && key != "target" && key != "digest" {
				t.Errorf("%s: @%s@ is no field that anybody gives", d.Name, m[1])
			}
		}
	}
	if len(ids) != int(eventsEnd)-1 {
		t.Errorf("table has %d events, want %d", len(ids), int(eventsEnd)-1)
	}
}

// journald is the other end of the native protocol, as journald reads it.
type journald struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func listenJournald(t *testing.T) *journald {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &journald{t, conn, path}
}

func (j *journald) receive() map[string][]string {
	j.t.Helper()
	buf := make([]byte, 1<<20)
	if err := j.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		j.t.Fatal(err)
	}
	n, err := j.conn.Read(buf)
	if err != nil {
		j.t.Fatal(err)
	}
	fields, err := parse(buf[:n])
	if err != nil {
		j.t.Fatal(err)
	}
	return fields
}

// parse reads a datagram by the rules of JOURNAL_NATIVE_PROTOCOL.
func parse(b []byte) (map[string][]string, error) {
	fields := map[string][]string{}
	name := regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)
	for len(b) > 0 {
		i := bytes.IndexAny(b, "=\n")
		if i < 0 {
			return nil, errors.New("no end of name")
		}
		key := string(b[:i])
		if !name.MatchString(key) {
			return nil, errors.New("bad field name " + key)
		}
		var value []byte
		if b[i] == '=' {
			end := bytes.IndexByte(b, '\n')
			if end < 0 {
				return nil, errors.New("no end of value")
			}
			value, b = b[i+1:end], b[end+1:]
		} else {
			b = b[i+1:]
			if len(b) < 8 {
				return nil, errors.New("short length")
			}
			n := binary.LittleEndian.Uint64(b)
			b = b[8:]
			if n >= uint64(len(b)) || b[n] != '\n' {
				return nil, errors.New("length is wrong")
			}
			value, b = b[:n], b[n+1:]
		}
		fields[key] = append(fields[key], string(value))
	}
	return fields, nil
}

func TestEventInTheJournal(t *testing.T) {
	j := listenJournald(t)
	h := NewHandler(new(bytes.Buffer), Options{Socket: j.path})
	defer h.Close()
	log := slog.New(h).With("target", "app", "verify", "no")
	Emit(t.Context(), log, ReleaseServes,
		slog.String("unit", "app.service"), slog.String("from", "1.4.2"), slog.String("to", "1.5.0"),
		slog.Duration("took", 38*time.Millisecond), slog.Duration("window", time.Minute))
	want := map[string][]string{
		"MESSAGE":               {"app (Verify=no): 1.5.0 serves after 38ms, watching it for 1m0s"},
		"MESSAGE_ID":            {ReleaseServes.Describe().ID},
		"PRIORITY":              {"5"},
		"SYSLOG_IDENTIFIER":     {"upgraderd"},
		"UPGRADERD_TARGET":      {"app"},
		"UPGRADERD_VERIFY":      {"no"},
		"UPGRADERD_UNIT":        {"app.service"},
		"UPGRADERD_FROM":        {"1.4.2"},
		"UPGRADERD_TO":          {"1.5.0"},
		"UPGRADERD_TOOK_USEC":   {"38000"},
		"UPGRADERD_WINDOW_USEC": {"60000000"},
	}
	if diff := cmp.Diff(want, j.receive()); diff != "" {
		t.Error(diff)
	}
}

func TestHostileTextStaysOneEvent(t *testing.T) {
	j := listenJournald(t)
	h := NewHandler(new(bytes.Buffer), Options{Socket: j.path})
	defer h.Close()
	log := slog.New(h).WithGroup("g")
	log.Error("line\nPRIORITY=0\nMESSAGE_ID=1", "A=1\nPRIORITY", "x\x1b[2J\u202e\xff")
	got := j.receive()
	if len(got["PRIORITY"]) != 1 || got["PRIORITY"][0] != "3" || got["MESSAGE_ID"] != nil {
		t.Errorf("injected: %q", got)
	}
	if want := []string{`x\x1b[2J\u202e\xff`}; !cmp.Equal(got["UPGRADERD_G_A_1_PRIORITY"], want) {
		t.Errorf("got %q, want value %q", got, want)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"event", func(l *slog.Logger) {
			Emit(t.Context(), l.With("target", "app"), ReleaseFound, slog.String("to", "2"), slog.String("from", ""))
		}, "app: found 2, unknown is installed\n"},
		{"plain", func(l *slog.Logger) { l.With("target", "app").Info("hello", "n", 1, "s", "a b") }, "app: hello n=1 s=\"a b\"\n"},
		{"debug is off", func(l *slog.Logger) { l.Debug("x") }, ""},
		{"secret", func(l *slog.Logger) { l.Info("get", "url", "https://me:pw@host/x?token=1") }, "get url=https://host/x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			tt.log(slog.New(NewHandler(&b, Options{})))
			if b.String() != tt.want {
				t.Errorf("got %q, want %q", b.String(), tt.want)
			}
		})
	}
}

func TestJournalGoneFallsBackToText(t *testing.T) {
	j := listenJournald(t)
	var b bytes.Buffer
	h := NewHandler(&b, Options{Socket: j.path})
	defer h.Close()
	if err := os.Remove(j.path); err != nil {
		t.Fatal(err)
	}
	slog.New(h).Warn("still here")
	if got, want := b.String(), "still here\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                     "plain",
		"zwei\nZeilen":              `zwei\nZeilen`,
		"grün":                      "grün",
		"a\x00b":                    `a\x00b`,
		"a\u202eb\u2028c":           `a\u202eb\u2028c`,
		"\xc3(":                     `\xc3(`,
		`Get "https://u:p@h/p?q=s"`: `Get "https://h/p"`,
		"https://h/p?tok=1: refused https://a@b/c":  "https://h/p: refused https://b/c",
		"https://u:p@x@h/p":                         "https://h/p",
		"https://h?token=s":                         "https://h",
		"https://h#f":                               "https://h",
		strings.Repeat("a", valueMax+1):             strings.Repeat("a", valueMax) + "…",
		"unix:path=/run/x and http://h/@not-a-user": "unix:path=/run/x and http://h/@not-a-user",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzDatagram(f *testing.F) {
	f.Add("msg", "key", "value")
	f.Add("a\nb", "A=1\nPRIORITY", "x\ny=z")
	f.Add("\xff", "_", "https://u:p@h/?q")
	f.Fuzz(func(t *testing.T, msg, key, value string) {
		h := &Handler{sink: &sink{}}
		var fields []field
		h.add(&fields, "", slog.String(key, value))
		b := appendField(nil, "MESSAGE", Clean(msg))
		for _, f := range fields {
			b = appendField(b, f.name, f.value)
		}
		got, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := 1 + len(fields); len(got) != want {
			t.Errorf("got %d fields, want %d: %q", len(got), want, got)
		}
		if strings.ContainsAny(got["MESSAGE"][0], "\n\r\x1b\x00") {
			t.Errorf("control characters in %q", got["MESSAGE"][0])
		}
	})
}
