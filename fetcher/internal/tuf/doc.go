// Package tuf lists the targets of a repository of The Update Framework. Its
// promise: a Target was listed by the roles that a root allows to list it, which
// is the operator's own root or follows from it, signature by signature; nothing
// of it is expired, and nothing is older than what this host has seen before.
//
//	root ──▶ timestamp ──▶ snapshot ──▶ targets ──▶ delegated roles ──▶ View
//
// The client workflow of the specification, with its checks of signatures, is
// go-tuf's. What is added: metadata comes through a source.Source alone; all roles
// that could list a wanted name are looked through, where go-tuf looks for one
// name; every error has a code; and what is trusted is kept durably, see trusted.
//
// The specification: https://theupdateframework.github.io/specification/latest/
package tuf
