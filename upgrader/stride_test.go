//go:build !race

package upgrader

// stride is how many calls a sweep goes on by: it breaks each of them.
const stride = 1
