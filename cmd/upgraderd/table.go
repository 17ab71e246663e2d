package main

import (
	"strings"
	"unicode/utf8"
)

// table is aligned, and no wider than the screen: the widest cells lose their ends,
// as with systemctl.
type table struct {
	head []string
	rows [][]cell
	// fixed are columns that are never cut: what tells one row from another.
	fixed int
}

type cell struct {
	text  string
	paint paint
}

// row adds cells without colour.
func (t *table) row(texts ...string) {
	cells := make([]cell, len(texts))
	for i, text := range texts {
		cells[i] = cell{text: text}
	}
	t.rows = append(t.rows, cells)
}

const (
	tableGap = 2
	// cellMin is what is left of a cell at least, or its head.
	cellMin = 8
)

func (t *table) print(s *screen) error {
	all := [][]cell{nil}
	for _, head := range t.head {
		all[0] = append(all[0], cell{head, underline})
	}
	for _, row := range t.rows {
		cells := make([]cell, len(row))
		for i, c := range row {
			cells[i] = cell{s.oneLine(c.text), c.paint}
		}
		all = append(all, cells)
	}
	widths := t.widths(all, s.width)
	for _, row := range all {
		for i, c := range row {
			text := s.cut(c.text, widths[i])
			pad := ""
			if i < len(row)-1 {
				pad = strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+tableGap)
			}
			if err := s.painted(c.paint, text); err != nil {
				return err
			}
			if _, err := s.Write([]byte(pad)); err != nil {
				return err
			}
		}
		if _, err := s.Write([]byte("\n")); err != nil {
			return err
		}
	}
	return nil
}

// widths are those of the columns, together at most limit, unless that is 0.
func (t *table) widths(rows [][]cell, limit int) []int {
	widths := make([]int, len(t.head))
	total := tableGap * (len(t.head) - 1)
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
		total += widths[i]
	}
	for ; limit > 0 && total > limit; total-- {
		widest := -1
		for i := t.fixed; i < len(widths); i++ {
			if widths[i] > max(cellMin, utf8.RuneCountInString(t.head[i])) && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break // it wraps
		}
		widths[widest]--
	}
	return widths
}

// oneLine is text as it will be seen: what it becomes on its way counts.
func (s *screen) oneLine(text string) string {
	text = strings.NewReplacer("\n", " ", "\t", " ").Replace(string(printable([]byte(text))))
	if s.ascii {
		text = unicodes.Replace(text)
	}
	return text
}

// cut ends a text that is too long with an ellipsis.
func (s *screen) cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	end := "…"
	if s.ascii {
		end = "..."
	}
	return string([]rune(text)[:max(0, width-utf8.RuneCountInString(end))]) + end
}
