// Package signature says who signed a text. Its promise: every signer that it
// names was trusted by whoever made the Ring, has not been revoked and has not
// expired, and signed exactly these bytes; the same signer is never named twice.
//
//	text of Key=    ── Parse ──▶ Keys ── New ──▶ Ring
//	SHA256SUMS, raw ── Ring.Count ──▶ Count ◀── Add ── SHA256SUMS.minisig, .gpg, …
//	                                    │
//	                                 Result: who signed, or why they are too few
//
// A kind of signature is one file behind one contract, scheme:
//
//	minisign.go  minisign(1), signify's successor: Ed25519, one signature a file
//	openpgp.go   gpg(1) and others: keyrings, subkeys, expiry, revocation
//	ssh.go       ssh-keygen -Y sign: public keys and allowed-signers files
//
// Whatever is not signed in a signature file (armour, packet headers, unhashed
// subpackets) has one spelling only, so that a changed bit is always noticed;
// the exceptions are the comments of minisign and of OpenPGP's armour, which
// nobody reads.
//
// The package reads no files and keeps no state. A Ring may be used by many
// goroutines at once, a Count by one.
package signature
