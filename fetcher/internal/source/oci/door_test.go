package oci

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/registry"
)

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestBasic has a registry that takes a login itself.
func TestBasic(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(canary), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := file(t, "reader:"+string(hash)+"\n")
	r := registry.Start(t, "auth:\n  htpasswd:\n    realm: test\n    path: "+users+"\n")
	r.Authorize = func(request *http.Request) { request.SetBasicAuth("reader", canary) }
	r.Artifact("acme/app", "stable", map[string][]byte{"SHA256SUMS": []byte("hello")}, nil)
	with := func(a credential.Access) *Artifact {
		return open(t, "oci://registry.example.com/acme/app:stable", Options{Endpoint: "http://" + r.Address, Access: a})
	}
	login := file(t, "reader:"+canary+"\n")
	a := with(credential.Access{LoginFile: login})
	for range 2 {
		look(t, a)
		if got := read(t, a, "SHA256SUMS"); got != "hello" {
			t.Errorf("read %q", got)
		}
	}
	wantRefused(t, with(credential.Access{}), fault.Denied, false, "401", "LoginFile=")
	wantRefused(t, with(credential.Access{LoginFile: file(t, "reader:wrong-"+canary)}), fault.Denied, false, "401", "LoginFile=")
	wantRefused(t, with(credential.Access{TokenFile: file(t, canary)}), fault.Denied, false, "401", "TokenFile=")

	// The file is read for each request.
	if err := os.WriteFile(login, []byte("reader:other"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = a.Look(context.Background())
	sourcetest.WantCode(t, err, fault.Denied, false)
	if err := os.WriteFile(login, []byte("reader:"+canary), 0o600); err != nil {
		t.Fatal(err)
	}
	look(t, a)
}

// office makes the tokens of a registry, as its own specification says:
// https://distribution.github.io/distribution/spec/auth/jwt/.
type office struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert []byte // DER
	*httptest.Server

	mu     sync.Mutex
	asked  []string
	lasts  int
	issued int
	// instead, unless nil, answers.
	instead http.HandlerFunc
}

func newOffice(t *testing.T) *office {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "office"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, key: key, cert: cert, lasts: 300}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

// section is the registry's configuration.
func (o *office) section() string {
	bundle := file(o.t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.cert})))
	return fmt.Sprintf("auth:\n  token:\n    realm: %s/token\n    service: registry of the test\n    issuer: office\n    rootcertbundle: %s\n", o.URL, bundle)
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	user, password, _ := r.BasicAuth()
	query := r.URL.Query()
	o.asked = append(o.asked, fmt.Sprintf("%s %s %s %s", r.URL.Path, query.Get("service"), query.Get("scope"), user))
	switch {
	case o.instead != nil:
		o.instead(w, r)
		return
	case user != "" && (user != "reader" || password != canary):
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	actions := []string{}
	if user == "reader" {
		actions = append(actions, "pull")
	}
	o.issued++
	json.NewEncoder(w).Encode(map[string]any{"token": o.token(query.Get("scope"), actions...), "expires_in": o.lasts})
}

// token signs what may be done to the repository in scope.
func (o *office) token(scope string, actions ...string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(scope, "repository:"), ":pull")
	now := time.Now()
	encode := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			o.t.Error(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := encode(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(o.cert)}}) + "." + encode(map[string]any{
		"iss": "office", "sub": "reader", "aud": "registry of the test", "jti": fmt.Sprint(now.UnixNano()),
		"exp": now.Add(5 * time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(),
		"access": []map[string]any{{"type": "repository", "name": name, "actions": actions}},
	})
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, o.key, sum[:])
	if err != nil {
		o.t.Error(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// questions gives what was asked of the office, and forgets it.
func (o *office) questions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked := o.asked
	o.asked = nil
	return asked
}

func (o *office) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// TestTokens has a registry that lets in whoever another service gave a token.
func TestTokens(t *testing.T) {
	o := newOffice(t)
	r := registry.Start(t, o.section())
	r.Authorize = func(request *http.Request) {
		request.Header.Set("Authorization", "Bearer "+o.token("repository:acme/app:pull", "pull", "push"))
	}
	r.Artifact("acme/app", "stable", map[string][]byte{"SHA256SUMS": []byte("hello")}, nil)
	login := credential.Access{LoginFile: file(t, "reader:"+canary)}
	with := func(a credential.Access) *Artifact {
		return open(t, "oci://registry.example.com/acme/app:stable", Options{Endpoint: "http://" + r.Address, Access: a})
	}

	a := with(login)
	for range 3 {
		look(t, a)
		if got := read(t, a, "SHA256SUMS"); got != "hello" {
			t.Errorf("read %q", got)
		}
	}
	if got, want := o.questions(), []string{"/token registry of the test repository:acme/app:pull reader"}; !reflect.DeepEqual(got, want) {
		t.Errorf("asked %q, want %q: a token lasts for its time", got, want)
	}

	// One that has ended, or that the registry does not know any more, is
	// replaced.
	a.door.until = time.Now().Add(-time.Second)
	look(t, a)
	a.door.ticket = "another"
	a.door.until = time.Now().Add(time.Hour)
	look(t, a)
	if got := o.questions(); len(got) != 2 {
		t.Errorf("asked %q", got)
	}
	o.set(func() { o.lasts = 1 })
	b := with(login)
	look(t, b)
	if got := read(t, b, "SHA256SUMS"); got != "hello" {
		t.Errorf("read %q by tokens of a second", got)
	}
	o.set(func() { o.lasts = 300 })

	wantRefused(t, with(credential.Access{}), fault.Denied, false, "401", "LoginFile=")
	wantRefused(t, with(credential.Access{LoginFile: file(t, "reader:wrong-"+canary)}), fault.Denied, false, "token of 127.0.0.1", "401", "LoginFile=")

	// A token of one's own is shown to the registry.
	o.questions()
	c := with(credential.Access{TokenFile: file(t, o.token("repository:acme/app:pull", "pull"))})
	look(t, c)
	if got := read(t, c, "SHA256SUMS"); got != "hello" {
		t.Errorf("read %q with a token of one's own", got)
	}
	wantRefused(t, with(credential.Access{TokenFile: file(t, canary)}), fault.Denied, false, "TokenFile=")
	if got := o.questions(); len(got) != 0 {
		t.Errorf("asked %q for who has a token", got)
	}
}

// TestTokenLiars is a table of services that give no token.
func TestTokenLiars(t *testing.T) {
	o := newOffice(t)
	r := registry.Start(t, o.section())
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/"`)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name      string
		instead   http.HandlerFunc
		code      fault.Code
		temporary bool
	}{
		{"not there", say(404, ""), fault.Protocol, true},
		{"refused", say(401, ""), fault.Denied, false},
		{"forbidden", say(403, `{"errors": [{"code": "DENIED", "message": "`+canary+`"}]}`), fault.Denied, false},
		{"out of order", say(503, ""), fault.Server, true},
		{"too many", say(429, ""), fault.Throttled, true},
		{"no JSON", say(200, canary), fault.Protocol, true},
		{"no token", say(200, `{"expires_in": 5}`), fault.Protocol, true},
		{"a token that is none", say(200, `{"token": "`+canary+` `+canary+`"}`), fault.Protocol, true},
		{"a token of another header", say(200, `{"token": "`+canary+`\r\nX: y"}`), fault.Protocol, true},
		{"a token that is too large", say(200, `{"token": "`+strings.Repeat(canary, 2000)+`"}`), fault.Protocol, true},
		{"too much", say(200, strings.Repeat(" ", ticketMax+1)), fault.MetaTooLarge, false},
		{"a token that is no use", say(200, `{"access_token": "`+canary+`", "expires_in": 9223372036854775807}`), fault.Denied, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o.set(func() { o.instead = c.instead })
			a := open(t, "oci://registry.example.com/acme/app:stable", Options{Endpoint: "http://" + r.Address, Access: credential.Access{LoginFile: file(t, "reader:"+canary)}})
			wantRefused(t, a, c.code, c.temporary)
		})
	}
}

// TestLoginGoesNowhereElse has registries that send us to where a login should not
// go: to a service without TLS, by a redirect, by the challenge of a stranger.
func TestLoginGoesNowhereElse(t *testing.T) {
	var strangers []string
	challenge := ""
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		strangers = append(strangers, r.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer stranger.Close()
	home := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" && challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, strings.Replace(stranger.URL, "http:", "https:", 1), http.StatusFound)
	}))
	defer home.Close()
	authority := file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: home.Certificate().Raw})))
	at := func(endpoint string) *Artifact {
		o := Options{Endpoint: endpoint, Access: credential.Access{LoginFile: file(t, "reader:"+canary)}}
		o.Client.CAFile = authority
		return open(t, "oci://registry.example.com/acme/app:stable", o)
	}
	for _, c := range []struct {
		challenge string
		code      fault.Code
	}{
		{`Bearer realm="` + stranger.URL + `/token",service="x"`, fault.Protocol}, // no TLS
		{`Bearer realm="ftp://` + strings.TrimPrefix(stranger.URL, "http://") + `"`, fault.Protocol},
		{`Bearer realm="https://u:p@127.0.0.1"`, fault.Protocol},
		{`Bearer realm="/token"`, fault.Protocol},
		{`Bearer`, fault.Protocol},
		{`Digest realm="x"`, fault.Denied},
		{`Basic realm="x"`, fault.TLS}, // by redirect, to who speaks no TLS
	} {
		challenge = c.challenge
		_, err := at(home.URL).Look(context.Background())
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.challenge, err, c.code)
		}
	}
	// A redirect without TLS that ends at a challenge of somebody else.
	plain := httptest.NewServer(http.RedirectHandler(stranger.URL, http.StatusFound))
	defer plain.Close()
	a := at(plain.URL)
	a.door.login = true
	_, err := a.Look(context.Background())
	sourcetest.WantCode(t, err, fault.Denied, false)
	if got := strings.Join(strangers, ""); got != "" || len(strangers) == 0 {
		t.Errorf("strangers got %q", strangers)
	}
	var view source.View
	if view, err = a.Look(context.Background()); err == nil {
		t.Errorf("found %v", view)
	}
}

func TestParseChallenge(t *testing.T) {
	for _, c := range []struct {
		text, scheme string
		want         map[string]string
	}{
		{`Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull"`, "bearer",
			map[string]string{"realm": "https://auth.example.com/token", "service": "registry.example.com", "scope": "repository:a/b:pull"}},
		{`bearer realm="a" , service=b, error="x, y"`, "bearer", map[string]string{"realm": "a", "service": "b", "error": "x, y"}},
		{`BASIC Realm="x",realm="y"`, "basic", map[string]string{"realm": "x"}},
		{`Basic`, "basic", map[string]string{}},
		{``, "", map[string]string{}},
		{`Bearer realm="open`, "bearer", map[string]string{"realm": "open"}},
		{`Bearer ,,, =`, "bearer", map[string]string{"": ""}},
	} {
		scheme, got := parseChallenge(c.text)
		if scheme != c.scheme || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %s %v, want %s %v", c.text, scheme, got, c.scheme, c.want)
		}
	}
}

func FuzzParseChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example.com/token",service="registry.example.com"`)
	f.Add(`Basic realm="x`)
	f.Add(` , = "" ,"=`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, parameters := parseChallenge(text); len(parameters) > len(text) {
			t.Errorf("%d parameters of %d bytes", len(parameters), len(text))
		}
	})
}
