package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// recordSchema is the version of the record's outer form, and of what the
// state machine writes inside. A store refuses a higher one rather than
// guess at it.
const recordSchema = 1

// errNoReserve is a full disk on which not even the reserve is left.
var errNoReserve error = syscall.ENOSPC

// recordFile is record.json. The checksum is over the bytes of Record as
// they stand in the file: a torn or rotten record is told from a good one.
type recordFile struct {
	Schema int             `json:"schema"`
	SHA256 string          `json:"sha256"`
	Record json.RawMessage `json:"record"`
}

// SaveRecord writes v, as JSON, to record.json, and returns when it will
// survive a power cut. Until then the record before it is in force.
//
// It works on a full disk, too, once after each successful Preflight or Open
// that found room: see the reserve in the package's documentation.
func (s *Store) SaveRecord(v any) error {
	const op = "save record"
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	text := sealRecord(data)
	if len(text) > reserveSize {
		return &Error{Op: op, Code: CodeRecordTooLarge, Err: fmt.Errorf("record has %d bytes, want at most %d", len(text), reserveSize)}
	}
	return reason.FS(op, s.replace(s.path(recordName), text))
}

// LoadRecord reads record.json into v. It reports false where there is none.
// A record that is cut short, changed or of a later upgraderd is an error;
// v is then untouched, and the next SaveRecord replaces the record.
func (s *Store) LoadRecord(v any) (bool, error) {
	const op = "load record"
	data, err := s.readFile(s.path(recordName), reserveSize)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, reason.FS(op, err)
	}
	record, err := openRecord(data)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Op = op + " " + s.path(recordName)
		}
		return false, err
	}
	if err := json.Unmarshal(record, v); err != nil {
		return false, corrupt("%w", err)
	}
	return true, nil
}

func sealRecord(record []byte) []byte {
	sum := sha256.Sum256(record)
	return fmt.Appendf(nil, "{\"schema\":%d,\"sha256\":\"%x\",\"record\":%s}\n", recordSchema, sum, record)
}

// openRecord checks a record file and hands out what is in it.
func openRecord(data []byte) ([]byte, error) {
	var f recordFile
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, corrupt("it is empty")
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, corrupt("%w", err)
	}
	if f.Schema > recordSchema {
		return nil, &Error{Code: CodeRecordNewer, Err: fmt.Errorf("record of schema %d, want at most %d: a later upgraderd wrote it", f.Schema, recordSchema), Hint: "install that version again"}
	}
	if f.Schema < 1 {
		return nil, corrupt("got schema %d, want %d", f.Schema, recordSchema)
	}
	sum := sha256.Sum256(f.Record)
	if got := hex.EncodeToString(sum[:]); got != f.SHA256 {
		return nil, corrupt("got checksum %s, want %q", got, clip(f.SHA256))
	}
	return f.Record, nil
}

func corrupt(format string, args ...any) error {
	return &Error{Code: CodeRecordCorrupt, Err: fmt.Errorf(format, args...), Hint: "the links still tell what runs; see upgraderd status, and remove the file if they are right"}
}
