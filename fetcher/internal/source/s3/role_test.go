package s3

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

// TestRealMetadataService takes its keys from the metadata service that Amazon has
// for tests, version 2 alone, and signs with them for a real server.
func TestRealMetadataService(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.Put("releases", "SHA256SUMS", []byte("hello"))
	program := sourcetest.Tool(t, "ec2-metadata-mock")
	config := filepath.Join(t.TempDir(), "config.json")
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"values": map[string]any{"iam-security-credentials": map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": versity.ID, "SecretAccessKey": versity.Secret, "Token": "",
		"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	service := sourcetest.Serve(t, func(address string) *exec.Cmd {
		host, port, _ := strings.Cut(address, ":")
		cmd := exec.Command(program, "--imdsv2", "--hostname", host, "--port", port, "--config-file", config)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		return cmd
	})
	o := Options{Endpoint: g.URL, Region: versity.Region, InstanceRole: true, Getenv: environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+service)}
	b := open(t, "s3://releases", o)
	for range 2 {
		raw, _, err := b.Read(context.Background(), "SHA256SUMS", 10, "")
		if err != nil || string(raw) != "hello" {
			t.Fatalf("%q, %v", raw, err)
		}
	}
}

// metadata is a metadata service that can be told what to say.
type metadata struct {
	mu      sync.Mutex
	refuse  map[string]int // path → status
	role    string
	keys    string
	expires time.Time
	asked   int // for keys
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const roles = "/latest/meta-data/iam/security-credentials/"
	if status := m.refuse[r.URL.Path]; status != 0 {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(status)
		return
	}
	switch {
	case r.URL.Path == "/latest/api/token" && r.Method == http.MethodPut && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
		io.WriteString(w, canary+"=")
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != canary+"=":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == roles:
		io.WriteString(w, m.role)
	case r.URL.Path == roles+m.role:
		m.asked++
		if m.keys != "" {
			io.WriteString(w, m.keys)
			return
		}
		fmt.Fprintf(w, `{"Code": "Success", "AccessKeyId": "AK%d", "SecretAccessKey": "%s", "Token": "%s", "Expiration": "%s"}`,
			m.asked, canary, canary, m.expires.Format(time.RFC3339))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// roleOf makes a role of what m says, and a clock for it.
func roleOf(t *testing.T, m *metadata) (r *role, now *time.Time) {
	t.Helper()
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	r, err := newRole(Options{Getenv: environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	r.now = func() time.Time { return clock }
	m.expires = clock.Add(6 * time.Hour)
	return r, &clock
}

func TestRoleRenews(t *testing.T) {
	m := &metadata{role: "reader", refuse: map[string]int{}}
	r, now := roleOf(t, m)
	lend := func(want string) {
		t.Helper()
		keys, err := r.lend(context.Background())
		if err != nil || keys.AccessKeyID != want || keys.SecretAccessKey != canary || keys.SessionToken != canary {
			t.Fatalf("got %q, %v; want %s", keys.AccessKeyID, err, want)
		}
	}
	lend("AK1")
	*now = now.Add(5 * time.Hour)
	lend("AK1")
	*now = now.Add(56 * time.Minute) // four before the end
	m.refuse["/latest/api/token"] = 500
	lend("AK1") // good for some minutes
	delete(m.refuse, "/latest/api/token")
	m.expires = now.Add(6 * time.Hour)
	lend("AK2")
	m.refuse["/latest/api/token"] = 500
	*now = now.Add(7 * time.Hour)
	_, err := r.lend(context.Background())
	sourcetest.WantCode(t, err, fault.Server, true)
	delete(m.refuse, "/latest/api/token")
	m.expires = now.Add(6 * time.Hour)
	lend("AK3")

	// Keys that are refused are renewed, unless they are new.
	keys, _ := r.lend(context.Background())
	if _, ok := r.renew(context.Background(), keys); ok {
		t.Error("renewed keys that came just now")
	}
	*now = now.Add(2 * time.Minute)
	others, ok := r.renew(context.Background(), keys)
	if !ok || others.AccessKeyID != "AK4" {
		t.Errorf("renewed to %q, %v", others.AccessKeyID, ok)
	}
	if again, ok := r.renew(context.Background(), keys); !ok || again.AccessKeyID != "AK4" || m.asked != 4 {
		t.Errorf("somebody else who was refused got %q, %v, after %d questions", again.AccessKeyID, ok, m.asked)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	<-r.turn
	_, err = r.lend(ended)
	sourcetest.WantCode(t, err, fault.Canceled, true)
	r.leave()
}

// TestRefusedKeysAreRenewed has a service refuse the keys that it got first.
func TestRefusedKeysAreRenewed(t *testing.T) {
	m := &metadata{role: "reader"}
	r, now := roleOf(t, m)
	var shown []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, r.Header.Get("X-Amz-Security-Token"))
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AK2/") {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "<Error><Code>ExpiredToken</Code></Error>")
			return
		}
		io.WriteString(w, "hello")
	}))
	defer server.Close()
	b := open(t, "s3://releases", Options{Endpoint: server.URL, Getenv: environment()})
	b.lender = r
	if _, err := r.lend(context.Background()); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Hour)
	raw, _, err := b.Read(context.Background(), "SHA256SUMS", 10, "")
	if err != nil || string(raw) != "hello" || fmt.Sprint(shown) != fmt.Sprint([]string{canary, canary}) {
		t.Errorf("read %q, %v; tokens %q", raw, err, shown)
	}
}

// TestNoRole is a table of instances that have none, or no service.
func TestNoRole(t *testing.T) {
	const token, roles = "/latest/api/token", "/latest/meta-data/iam/security-credentials/"
	for _, c := range []struct {
		name      string
		m         *metadata
		code      fault.Code
		temporary bool
		says      string
	}{
		{"no role", &metadata{refuse: map[string]int{roles: 404}}, fault.Denied, true, "no role"},
		{"no role, in another way", &metadata{}, fault.Denied, true, "no role"},
		{"switched off", &metadata{refuse: map[string]int{token: 403}}, fault.Denied, false, "instance metadata service"},
		{"of another kind", &metadata{refuse: map[string]int{token: 405}}, fault.Status, false, "version 2"},
		{"out of order", &metadata{role: "x", refuse: map[string]int{roles + "x": 503}}, fault.Server, true, "503"},
		{"led astray", &metadata{refuse: map[string]int{token: 302}}, fault.Redirect, false, "302"},
		{"no JSON", &metadata{role: "x", keys: canary}, fault.Denied, true, "no keys of the role"},
		{"no keys", &metadata{role: "x", keys: `{"Code": "AssumeRoleUnauthorizedAccess", "Message": "` + canary + `"}`}, fault.Denied, true, "no keys of the role"},
		{"no end", &metadata{role: "x", keys: `{"AccessKeyId": "a", "SecretAccessKey": "` + canary + `", "Expiration": "soon"}`}, fault.Denied, true, "no keys of the role"},
		{"too much", &metadata{role: strings.Repeat("x", metadataMax+1)}, fault.MetaTooLarge, false, "instance metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := roleOf(t, c.m)
			b := open(t, "s3://releases", Options{Endpoint: "http://127.0.0.1:1", Getenv: environment()})
			b.lender = r
			wantRefused(t, b, c.code, c.temporary, c.says)
		})
	}
	t.Run("no service", func(t *testing.T) {
		o := Options{Endpoint: "http://127.0.0.1:1", InstanceRole: true, Getenv: environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")}
		wantRefused(t, open(t, "s3://releases", o), fault.Connect, true, "InstanceRole=")
	})
	for _, endpoint := range []string{"https://[::1]", "169.254.169.254", "http://u:" + canary + "@h"} {
		_, err := newRole(Options{Getenv: environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)})
		sourcetest.WantCode(t, err, fault.ConfigSource, false)
	}
}
