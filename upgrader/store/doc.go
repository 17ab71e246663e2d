// Package store keeps the releases of one target on disk. A release is
// complete and durable, or it is not there; a listing of the directory tells
// the whole state; and every change is one atomic rename, so that an error, a
// kill or a power cut at any point leaves the old state or the new one.
package store
