package forge

import (
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// gitea speaks version 1 of the API of Gitea and Forgejo. Source: /api/swagger of
// each of them.
type gitea struct{}

func (gitea) place(u *url.URL) (endpoint, project string, err error) {
	names, err := segments(u, 2, 2)
	if err != nil {
		return "", "", err
	}
	return "https://" + u.Host + "/api/v1", "repos/" + names[0] + "/" + names[1], nil
}

func (gitea) latest() string           { return "releases/latest" }
func (gitea) tagged(tag string) string { return "releases/tags/" + url.PathEscape(tag) }
func (gitea) accept() string           { return "application/json" }

func (gitea) list(page int) url.Values {
	return url.Values{"limit": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)}}
}

// files are got by their UUID, which another upload does not share, from a place
// beside the API that takes its tokens. The address that the API tells takes
// none. Forgejo has links, too.
func (gitea) files(p *Project, raw json.RawMessage) ([]file, error) {
	var assets []struct {
		Name string `json:"name"`
		Size int64  `json:"size"`
		UUID string `json:"uuid"`
		Type string `json:"type"`
		URL  string `json:"browser_download_url"`
	}
	if err := json.Unmarshal(raw, &assets); err != nil {
		return nil, notTheAPI(err)
	}
	root := *p.api
	root.Path, _, _ = strings.Cut(root.Path, "/api/v1/")
	root.RawPath = ""
	files := make([]file, len(assets))
	for i, a := range assets {
		if a.Type == "external" {
			files[i] = p.link(a.Name, a.URL)
			continue
		}
		if a.UUID == "" || strings.Trim(a.UUID, "0123456789abcdefABCDEF-") != "" {
			return nil, notTheAPI(errors.New("a file without a UUID"))
		}
		files[i] = file{
			name: a.Name, size: a.Size, mark: source.Mark("attachment " + a.UUID),
			request: client.Request{URL: root.JoinPath("attachments", a.UUID), Name: a.Name},
		}
	}
	return files, nil
}
