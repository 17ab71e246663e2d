package fetcher

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// TestMain makes the test binary its own child where something has to be a
// process: the server of the benchmarks, and errands.
func TestMain(m *testing.M) {
	if size, err := strconv.Atoi(os.Getenv(benchServerEnv)); err == nil {
		exit(benchServe(size))
	}
	if task := os.Getenv(errandEnv); task != "" {
		exit(runErrand(task))
	}
	os.Exit(m.Run())
}

func runErrand(task string) error {
	var e errand
	if err := json.Unmarshal([]byte(task), &e); err != nil {
		return err
	}
	got, err := e.do()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
