// Package fetcher brings releases from a source to this host. Its promise: a
// *Verified is a file on this disk whose bytes have the SHA-256 that a trusted
// key signed, or a TUF role that follows from a trusted root, or were signed
// themselves, and there is no other way to get one.
//
//	source ── SHA256SUMS, its signatures ──▶ Check ──▶ Listing
//	source ── app_1.4.2.zst ──▶ Fetch: read ∥ hash ∥ write ──▶ Verified
//
// A source is a directory, local or mounted, or an http(s) URL of one, as
// systemd-sysupdate publishes it: files whose names hold their version, and
// SHA256SUMS beside them. Package signature says who signed the raw bytes of
// SHA256SUMS, before they are parsed.
//
// Or a source is a project on GitHub, GitLab, Gitea or Forgejo, and its files are
// those of one release, which each Check finds. Or a source is what a command of
// the operator's prints, see package command.
//
// With Verify=tuf the source is a repository of The Update Framework instead, with
// metadata/ and targets/ below it, and Root= names the root that is trusted to
// begin with.
//
//	source ── metadata/timestamp.json, 7.snapshot.json, … ──▶ Check ──▶ Listing
//	source ── targets/DIGEST.app_1.4.2.zst ──▶ Fetch
//
// With NoManifest there is one file and no list, and its own signature says which
// release it is, and when its bytes are here that they are it.
//
//	source ── app.minisig ──▶ Check ──▶ Listing
//	source ── app ──▶ Fetch: read ∥ hash ∥ write, verify ──▶ Verified
//
// Patches may lie beside a release, for hosts that have an older one. A host has the
// program of a release, as its store unpacked it, and not the compressed file that it
// came from; so base and result of a patch are programs, and the manifest signs the
// whole way from one to the other:
//
//	SHA256SUMS ── digest of ──▶ app_1.5.0.zst            what a host without a base takes
//	           ── digest of ──▶ app_1.5.0.zst.deltas     names base, patches and content by
//	                                                     digest and size
//	           ── digest of ──▶ app_1.5.0.zst.from-1.4.2.bsdiff
//
// A *Verified is then the content: what app_1.5.0.zst holds, with the SHA-256 that
// the .deltas file says, whose own SHA-256 is signed. It counts as the release of
// app_1.5.0.zst, by whose digest it is known good or bad. Fetch takes the cheapest
// chain of at most eight patches if that is less than what is left of the file, and
// on any doubt the file, saying why in one line of the log. No MatchPattern= finds a
// name that ends in .deltas, .bsdiff or .zstd-patch.
//
// With Verify=no the source is believed. Digests then guard against damage
// only, and every error and log line says "unsigned".
//
// The package knows nothing of systemd, services or what an artifact holds. It
// keeps no state on disk but what Fetch leaves in the directory it is given:
// the artifact, or a part of it that the next Fetch takes up; and with Verify=tuf
// the metadata that is trusted, in a directory of its own.
//
//	for {
//		listing, err := f.Check(ctx)      // what is there
//		verified, err := f.Fetch(ctx, …)  // bring one
//		err = f.Wait(ctx)                 // until there may be something new
//	}
package fetcher
