//go:build race

package upgrader

// stride is how many calls a sweep goes on by. The race detector makes each of
// them ten times as slow, and sees in a few what there is to see.
const stride = 5
