package signature

import (
	"crypto/rand"
	"testing"
	"time"

	"aead.dev/minisign"
)

func TestClaimed(t *testing.T) {
	_, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		file []byte
		want time.Time
	}{
		{"minisign", minisign.SignWithComments(private, []byte("x"), "timestamp:1793534400\tfile:x", ""), when},
		{"minisign, another comment", minisign.SignWithComments(private, []byte("x"), "by hand", ""), time.Time{}},
		{"minisign, a time beyond all", minisign.SignWithComments(private, []byte("x"), "timestamp:99999999999999", ""), time.Time{}},
		{"nothing", nil, time.Time{}},
		{"white space", []byte(" \n"), time.Time{}},
		{"text", []byte("hello"), time.Time{}},
		{"SSH", []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"), time.Time{}},
	} {
		if got := Claimed(c.file); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzClaimed(f *testing.F) {
	_, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(minisign.Sign(private, []byte("x")))
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"))
	f.Add([]byte{0x88, 0x75, 0x04, 0x00})
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, file []byte) {
		if got := Claimed(file); got.Year() > 9999 {
			t.Error(got)
		}
	})
}
