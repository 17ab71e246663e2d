package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// FAULTS.md names tests; each of them has to be there.
func TestFaultsNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("FAULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	named := regexp.MustCompile(`^(?:([a-z][a-z0-9/]*): )?((?:Test|Fuzz)[A-Za-z0-9]+)`)
	sources := map[string]string{} // by folder
	tests := 0
	for number, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		folder := "" // stands for the tests that follow it
		for _, m := range code.FindAllStringSubmatch(line, -1) {
			n := named.FindStringSubmatch(m[1])
			if n == nil {
				continue
			}
			if n[1] != "" {
				folder = n[1]
			}
			if _, ok := sources[folder]; !ok {
				sources[folder] = read(t, folder)
			}
			tests++
			if !strings.Contains(sources[folder], "func "+n[2]+"(") {
				t.Errorf("FAULTS.md:%d: %s has no %s", number+1, folder, n[2])
			}
		}
	}
	if tests < 150 {
		t.Errorf("found only %d tests in FAULTS.md", tests)
	}
}

// read gives all test code of a folder of the module.
func read(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("no tests in %q (%v)", folder, err)
	}
	var b strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
	}
	return b.String()
}
