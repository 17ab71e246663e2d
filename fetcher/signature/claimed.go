package signature

import (
	"bytes"
	"time"

	"aead.dev/minisign"
)

// Claimed tells when the signatures in a file were made, by their own word: the
// earliest of them. Nothing of it is proven until what they sign is there. Zero if
// one does not say, as those of SSH, or the file is none that is read.
func Claimed(content []byte) time.Time {
	if len(bytes.TrimSpace(content)) == 0 {
		return time.Time{}
	}
	var sig minisign.Signature
	if err := sig.UnmarshalText(content); err == nil {
		return minisignTime(sig)
	}
	signatures, err := openPGPScheme{}.read(content)
	if err != nil {
		return time.Time{}
	}
	first := signatures[0].CreationTime
	for _, s := range signatures[1:] {
		if s.CreationTime.Before(first) {
			first = s.CreationTime
		}
	}
	return first.UTC()
}
