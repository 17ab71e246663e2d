package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
)

// refusalMax is far more than a registry says of an error.
const refusalMax = 64 << 10

// explain says more of an answer that brings nothing by the code in its body. The
// message there is not shown: it may repeat what was sent.
func (a *Artifact) explain(answer *client.Answer, f *fault.Error) *fault.Error {
	resp := answer.Response
	raw, err := io.ReadAll(io.LimitReader(answer, refusalMax))
	var said struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if err == nil && json.Unmarshal(raw, &said) == nil && len(said.Errors) > 0 {
		if code := said.Errors[0].Code; code != "" && len(code) <= 64 && strings.Trim(code, upper+"_") == "" {
			f.Err = fmt.Errorf("%w: %s", f.Err, code)
		}
	}
	home := resp.Request.URL.Host == a.base.Host && resp.Request.URL.Scheme == a.base.Scheme
	if resp.StatusCode == http.StatusUnauthorized && home {
		f.Err = &refusal{f.Err, resp.Header.Values("WWW-Authenticate")}
	}
	if f.Code == fault.Denied {
		switch access := a.door.access; {
		case access.TokenFile != "":
			f.Hint = "check that the token in TokenFile= may pull from the repository"
		case access.LoginFile != "":
			f.Hint = "check the user and password in LoginFile=, and that they may pull from the repository"
		default:
			f.Hint = "let everybody pull from the repository, or set LoginFile=; some registries say the same of what is not there"
		}
	}
	return f
}
