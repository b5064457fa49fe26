package main

import (
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	loginPath  = "/login"
	devicePath = "/device"
)

// pages are what people see of the provider.
type pages struct {
	store    *store
	provider *op.Provider
}

var form = template.Must(template.New("").Parse(`<!doctype html><title>Log in</title><form method="post">
<input name="id" value="{{.Get "id"}}" type="hidden">
<input name="user_code" value="{{.Get "user_code"}}">
<input name="username"><input name="password" type="password">
<button name="action" value="allow">Allow</button><button name="action" value="deny">Deny</button></form>
`))

// form asks who is there, and whether the client may know.
func (p *pages) form(w http.ResponseWriter, r *http.Request) {
	_ = form.Execute(w, r.URL.Query()) // who is gone needs no form
}

// user returns who has filled in the form.
func (p *pages) user(w http.ResponseWriter, r *http.Request) (string, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	name := r.FormValue("username")
	if err := p.store.CheckUsernamePasswordSimple(name, r.FormValue("password")); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return "", false
	}
	return name, true
}

// login ends a login in the browser.
func (p *pages) login(w http.ResponseWriter, r *http.Request) {
	name, ok := p.user(w, r)
	if !ok {
		return
	}
	id := r.FormValue("id")
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if r.FormValue("action") != "allow" {
		op.AuthRequestError(w, r, request, oidc.ErrAccessDenied(), p.provider)
		return
	}
	if err := p.store.CheckUsernamePassword(name, r.FormValue("password"), id); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	http.Redirect(w, r, op.AuthCallbackURL(p.provider)(r.Context(), id), http.StatusFound)
}

// device says yes or no to the device that shows a code.
func (p *pages) device(w http.ResponseWriter, r *http.Request) {
	name, ok := p.user(w, r)
	if !ok {
		return
	}
	code := r.FormValue("user_code")
	_, err := p.store.GetDeviceAuthorizationByUserCode(r.Context(), code)
	switch {
	case err != nil: // denying an unknown code is not expected by the storage
	case r.FormValue("action") == "allow":
		err = p.store.CompleteDeviceAuthorization(r.Context(), code, name)
	default:
		err = p.store.DenyDeviceAuthorization(r.Context(), code)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
	}
}

// rotate makes a new key for signatures. The others stay published, unless they are to be withdrawn.
func (p *pages) rotate(w http.ResponseWriter, r *http.Request) {
	if err := p.store.rotate(r.FormValue("withdraw") == "true"); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
