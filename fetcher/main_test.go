package fetcher

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// TestMain makes the test binary its own server where that has to be a process.
func TestMain(m *testing.M) {
	if size, err := strconv.Atoi(os.Getenv(benchServerEnv)); err == nil {
		if err := benchServe(size); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
