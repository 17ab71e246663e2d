package forge

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// github speaks version 2022-11-28 of GitHub's REST API, and that of GitHub
// Enterprise. Source: docs.github.com/rest/releases.
type github struct{}

func (github) place(u *url.URL) (endpoint, project string, err error) {
	names, err := segments(u, 1, 1)
	if err != nil {
		return "", "", err
	}
	owner, err := segments(&url.URL{Path: u.Host}, 1, 1)
	if err != nil {
		return "", "", err
	}
	return "https://api.github.com", "repos/" + owner[0] + "/" + names[0], nil
}

func (github) latest() string           { return "releases/latest" }
func (github) tagged(tag string) string { return "releases/tags/" + url.PathEscape(tag) }
func (github) accept() string           { return "application/vnd.github+json" }

func (github) list(page int) url.Values {
	return url.Values{"per_page": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)}}
}

// files are got by way of the API, which works for private projects too: it
// sends the file, or to where it is. An asset's bytes never change: a file that
// is uploaded again is another asset.
func (github) files(p *Project, raw json.RawMessage) ([]file, error) {
	var assets []struct {
		ID     int64  `json:"id"`
		Name   string `json:"name"`
		State  string `json:"state"`
		Size   int64  `json:"size"`
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(raw, &assets); err != nil {
		return nil, notTheAPI(err)
	}
	files := make([]file, len(assets))
	for i, a := range assets {
		id := strconv.FormatInt(a.ID, 10)
		files[i] = file{
			name: a.Name, size: a.Size, partial: a.State != "uploaded", mark: source.Mark("asset " + id),
			request: client.Request{
				URL: p.api.JoinPath("releases/assets", id), Name: a.Name,
				Header: http.Header{"Accept": {"application/octet-stream"}},
			},
		}
		if digest, ok := strings.CutPrefix(a.Digest, "sha256:"); ok {
			if n, err := hex.Decode(files[i].digest[:], []byte(digest[:min(len(digest), 64)])); err != nil || n != 32 || len(digest) != 64 {
				return nil, notTheAPI(fmt.Errorf("a SHA-256 of %d characters", len(digest)))
			}
		}
	}
	return files, nil
}
