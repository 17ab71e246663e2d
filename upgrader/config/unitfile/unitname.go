package unitfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	unitNameMax = 255 // systemd's UNIT_NAME_MAX is 256 with the NUL
	unitChars   = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\"
)

var unitTypes = []string{
	"service", "socket", "device", "mount", "automount", "swap",
	"target", "path", "timer", "slice", "scope",
}

// UnitName is a unit's name in its parts: prefix@instance.type. A plain name
// has no instance; a template has At set and an empty instance.
type UnitName struct {
	Prefix, Instance, Type string
	At                     bool
}

// Template tells whether the name lacks the instance that would make it run.
func (u UnitName) Template() bool { return u.At && u.Instance == "" }

// ParseUnitName takes a full unit name apart and refuses what systemd would
// not take for one.
func ParseUnitName(s string) (UnitName, error) {
	if len(s) > unitNameMax {
		return UnitName{}, fmt.Errorf("a unit name has at most %d bytes, this one %d", unitNameMax, len(s))
	}
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 || !slices.Contains(unitTypes, s[dot+1:]) {
		return UnitName{}, errors.New("a unit name ends in its type, such as .service")
	}
	name, kind := s[:dot], s[dot+1:]
	for _, c := range name {
		if c != '@' && !strings.ContainsRune(unitChars, c) {
			return UnitName{}, fmt.Errorf("a unit name cannot hold %q", c)
		}
	}
	prefix, instance, at := strings.Cut(name, "@")
	if prefix == "" {
		return UnitName{}, errors.New("a unit name needs something before its type or its @")
	}
	return UnitName{Prefix: prefix, Instance: instance, Type: kind, At: at}, nil
}

// EscapeUnit writes any text so that it can be part of a unit name, as
// systemd-escape(1) does.
func EscapeUnit(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '-' || c == '\\' || c == '.' && i == 0 || strings.IndexByte(unitChars, c) < 0:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// UnescapeUnit undoes [EscapeUnit].
func UnescapeUnit(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '-' {
			b.WriteByte('/')
			continue
		}
		if strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4 {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
