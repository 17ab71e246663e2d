// Package publish adds releases to a directory that hosts follow. Its promise:
// whoever reads the directory at any moment, in any order, finds the releases
// that were there or those that are there now, and nothing is put there that a
// host with the keys at hand would not accept.
//
// A directory is what sha256sum(1) and a signature make of files: [Add] does no
// more than a careful script would, and what stock tools made before is gone on
// with. Any web server or bucket can serve it.
//
//	artifacts ──▶ DIR/.publishing-…  copied, hashed, listed, signed
//	                     │
//	                     ▼  fetched and verified there, as a host would
//	          DIR/artifact, SHA256SUMS.minisig, SHA256SUMS   by renames, the list last
//
// A repository of The Update Framework is kept the same way, by [AddToRepository]:
// metadata/ and targets/ below DIR, the timestamp last.
//
// What the directory lists already is trusted no more than by a host: the old
// list's signature has to hold before it is signed anew. Else whoever can write
// to the directory could have the publisher sign for them.
package publish
