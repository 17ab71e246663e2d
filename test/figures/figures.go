// Package figures carries what the parts of a long run found out to the program
// that prints it: rows in a file, one JSON object a line. Tests note theirs where
// [Variable] names a file, and say nothing where it does not.
package figures

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Variable is the environment variable that names the file.
const Variable = "UPGRADERD_FIGURES"

// Row is one figure. Without a target it is shown for comparison.
type Row struct {
	Name   string `json:"name"`
	Figure string `json:"figure"`
	Target string `json:"target,omitempty"`
	Missed bool   `json:"missed,omitempty"`
}

// Note adds a row to the file.
func Note(r Row) error {
	path := os.Getenv(Variable)
	if path == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("note %q: %w", r.Name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("note %q: %w", r.Name, err)
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// Noted gives all rows, in the order in which they were noted.
func Noted() ([]Row, error) {
	path := os.Getenv(Variable)
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rows []Row
	for line := range bytes.Lines(data) {
		var r Row
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("read figures: %w", err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}
