//go:build integration

package badinput

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/upgraderd/upgraderd/test/publish"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

const downAddress = "127.0.0.1:8082"

// sourceFaults are of servers and networks.
func sourceFaults() []fault {
	// The server misbehaves until it does not.
	bad := func(name string, h func(s *scene) http.HandlerFunc, says ...string) fault {
		return fault{
			name: name, event: journal.SourceFailed, says: says,
			begin: func(s *scene) {
				s.site.misbehave(h(s))
				s.publish("2.0.0")
			},
			end: func(s *scene) { s.site.misbehave(nil) },
		}
	}
	resumes := func(f fault) fault {
		f.leaves = func(entry string) bool { return strings.HasPrefix(entry, ".incoming-") }
		return f
	}
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!DOCTYPE html><title>Log in to this network</title>") // a client that hangs up has had its answer
	}
	all := func(int) func(int) int { return func(size int) int { return size } }(0)
	return []fault{
		{
			name: "down", event: journal.SourceFailed, says: []string{"[FETCH_CONNECT]", downAddress},
			prepare: func(s *scene) {
				s.source = "http://" + downAddress + "/down/"
				s.halt = s.city.plain(s.t, s.m, downAddress)
			},
			begin: func(s *scene) { s.halt(); s.publish("2.0.0") },
			end:   func(s *scene) { s.city.plain(s.t, s.m, downAddress) },
		},
		{
			name: "moved", event: journal.SourceFailed, says: []string{"[SOURCE_MISSING]", "/srv/moved"},
			prepare: func(s *scene) {
				s.m.Run("mkdir", "/srv/moved")
				s.source, s.site.dir = "/srv/moved", s.m.Root()+"/srv/moved"
			},
			begin: func(s *scene) { s.m.Run("mv", "/srv/moved", "/srv/gone") },
			end: func(s *scene) {
				s.m.Run("mv", "/srv/gone", "/srv/moved")
				s.publish("2.0.0")
			},
		},
		resumes(bad("truncated", func(s *scene) http.HandlerFunc {
			return s.site.claim(func(size int) int { return size / 2 }, all)
		}, "[FETCH_SIZE]")),
		// All bytes and a wrong length is no fault for long: the digest holds.
		resumes(bad("long", func(s *scene) http.HandlerFunc {
			return s.site.claim(func(size int) int { return size - 1 }, func(size int) int { return size + 1000 })
		}, "[FETCH_SIZE]")),
		bad("short", func(s *scene) http.HandlerFunc {
			return s.site.claim(all, func(size int) int { return size / 2 })
		}, "[ARTIFACT_DIGEST]"),
		bad("huge", func(s *scene) http.HandlerFunc {
			return s.site.claim(all, func(int) int { return 1 << 40 })
		}, "[FETCH_TOO_LARGE]", "SizeMax="),
		bad("portal", func(*scene) http.HandlerFunc { return html }, "[META_NOT_SIGNED]"),
		bad("apology", func(s *scene) http.HandlerFunc { return s.site.onlyArtifact(html) }, "apology-2.0.0"),
		bad("broken", func(*scene) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusInternalServerError) }
		}, "[FETCH_SERVER]", "500 Internal Server Error"),
		bad("forbidden", func(*scene) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }
		}, "[FETCH_DENIED]", "403"),
		bad("redirect", func(s *scene) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.TLS == nil {
					s.t.Error("the redirect to http was followed")
				}
				http.Redirect(w, r, "http://"+plainAddress+r.URL.Path, http.StatusFound)
			}
		}, "[FETCH_REDIRECT]", "http://"+plainAddress),
		resumes(bad("stalled", func(s *scene) http.HandlerFunc {
			return s.site.onlyArtifact(func(w http.ResponseWriter, r *http.Request) {
				data, _ := s.site.file(fileOf(r))
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				_, _ = w.Write(data[:1<<20]) // it may be gone already
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		}, "[FETCH_STALLED]")),
		bad("nothing", func(s *scene) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if listing(r) {
					http.NotFound(w, r)
					return
				}
				s.site.behave(w, r)
			}
		}, "[META_MISSING]", publish.ManifestName),
	}
}
