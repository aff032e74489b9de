package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
)

// Limits counts things under names that all processes share. *cache.Cache does.
type Limits interface {
	Take(ctx context.Context, name string, l cache.Limit) (wait time.Duration, err error)
	Forgive(ctx context.Context, name string) error
}

// How often a login may be tried. A success clears the count of the name; many people may share an address.
var (
	loginsByAddress = cache.Limit{Burst: 30, Every: 4 * time.Second}
	loginsByName    = cache.Limit{Burst: 8, Every: 30 * time.Second}
)

const profileKey = "user_profile"

// credentials are the body of a login.
type credentials struct {
	Username string `json:"username" minLength:"1" maxLength:"150" pattern:"^[^\\x00-\\x1f\\x7f]*$" doc:"The editor's name."`
	Password string `json:"password" minLength:"1" maxLength:"1024" format:"password" doc:"The editor's password."`
}

// person is an editor as the API shows them.
type person struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	DisplayName string `json:"display_name"`
	Language    string `json:"language" doc:"A language tag, such as en or pt-BR."`
}

// visitor is the editor that a request comes from.
type visitor struct {
	token   string
	profile profile
	outcome cache.Outcome // of the profile
}

var (
	noSession   = unauthorized("log in first: POST /api/session/")
	wrongLogin  = unauthorized("the username or the password is wrong")
	crossOrigin = newProblem(http.StatusForbidden, "a browser sent this from a page of another origin")
)

func unauthorized(detail string) *problem {
	p := newProblem(http.StatusUnauthorized, detail)
	p.challenge = true
	return p
}

// visitor finds out who a request comes from. Without a session of an active editor that is the problem noSession.
func (a *API) visitor(r *http.Request) (visitor, error) {
	token := a.sessions.token(r)
	if token == "" {
		return visitor{}, noSession
	}
	l, found, err := a.sessions.find(r.Context(), token)
	if err != nil {
		return visitor{}, fmt.Errorf("finding a session: %w", err)
	}
	if !found {
		return visitor{}, noSession
	}
	v := visitor{token: token}
	if v.profile, found, v.outcome, err = a.cachedProfile(r.Context(), l.Editor, l.Language); err != nil {
		return visitor{}, err
	}
	if found && v.profile.Stamp == l.Stamp {
		return v, nil
	}
	// It may only be that what is cached is a moment old, or that the language is another by now. The table knows.
	v.outcome = cache.BypassToken
	language, found, err := a.store.language(r.Context(), l.Editor)
	if err != nil {
		return visitor{}, err
	}
	if found {
		if v.profile, found, err = a.store.profile(r.Context(), l.Editor, language); err != nil {
			return visitor{}, err
		}
	}
	if found && v.profile.Stamp == l.Stamp {
		return v, nil
	}
	if err := a.sessions.kept.Delete(r.Context(), token); err != nil {
		a.log.Warn("a session that may not be used was not deleted", zap.Error(err))
	}
	return visitor{}, noSession
}

// cachedProfile gives the profile of an active editor from the cache.
func (a *API) cachedProfile(ctx context.Context, id int64, language string) (p profile, found bool, outcome cache.Outcome, err error) {
	at := a.cache.At(cache.Key(profileKey, map[string]any{"lang": language, "user_id": id}))
	value, outcome, err := a.cache.Fetch(ctx, at, cache.User, func(ctx context.Context) (cache.Content, error) {
		ctx, span := startSpan(ctx, "load")
		defer span.End()
		p, found, err := a.store.profile(ctx, id, language)
		if err != nil || !found {
			return cache.Content{Absent: true}, failed(span, err)
		}
		body, err := json.Marshal(p)
		if err != nil {
			return cache.Content{}, fmt.Errorf("encoding the profile of editor %d: %w", id, err)
		}
		return cache.Content{Body: body}, nil
	})
	if err != nil || value.Absent() {
		return profile{}, false, outcome, err
	}
	body, err := value.Identity()
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if err != nil {
		return profile{}, false, outcome, errors.Join(fmt.Errorf("reading a cached profile: %w", err), a.cache.Delete(ctx, at))
	}
	return p, true, outcome, nil
}

// logIn answers POST /api/session/.
func (a *API) logIn(w http.ResponseWriter, r *http.Request) error {
	if a.crossOrigin.Check(r) != nil {
		return crossOrigin
	}
	given, err := readBody(w, r, credentialsForm, mediaJSON, maxLogin)
	if err != nil {
		return err
	}
	username, password := given.text("username"), given.text("password")
	sum := sha256.Sum256([]byte(username))
	name := "login:name:" + hex.EncodeToString(sum[:])
	for _, counted := range []struct {
		name  string
		limit cache.Limit
	}{{"login:address:" + a.clients.address(r), a.loginsByAddress}, {name, a.loginsByName}} {
		wait, err := a.limits.Take(r.Context(), counted.name, counted.limit)
		if err != nil {
			return fmt.Errorf("limiting logins: %w", err)
		}
		if wait > 0 {
			p := newProblem(http.StatusTooManyRequests, "too many attempts to log in")
			p.retryAfter = int(math.Ceil(wait.Seconds()))
			return p
		}
	}
	known, found, err := a.store.account(r.Context(), username)
	if err != nil {
		return err
	}
	hash := nobody
	if found {
		hash = known.Password
	}
	ok, outdated, err := verifyPassword(r.Context(), password, hash)
	if err != nil {
		return err
	}
	if !ok || !found || !known.Active {
		return wrongLogin
	}
	if outdated {
		hash = a.upgraded(r.Context(), known, password)
	}
	p, found, err := a.store.profile(r.Context(), known.ID, known.Language)
	if err != nil {
		return err
	}
	if !found {
		return wrongLogin // deactivated at this moment
	}
	if err := a.sessions.begin(w, r, login{Editor: known.ID, Language: known.Language, Stamp: stampOf(hash)}); err != nil {
		return err
	}
	if err := a.limits.Forgive(r.Context(), name); err != nil {
		a.log.Warn("a login's count was not cleared", zap.Error(err))
	}
	return writeJSON(w, r, http.StatusOK, p.person())
}

// upgraded stores a better hash of a password that was verified, and gives the hash that the login counts under. That it
// can't be stored is no reason to refuse the login: the next one tries again.
func (a *API) upgraded(ctx context.Context, known account, password string) string {
	hash, err := hashPassword(ctx, password)
	if err == nil {
		var current string
		if current, err = a.store.upgradePassword(ctx, known, hash); err == nil && current == hash {
			return hash
		}
	}
	if err != nil {
		a.log.Warn("a password's hash was not upgraded", zap.Error(err))
	}
	return known.Password
}

// whoAmI answers GET /api/session/.
func (a *API) whoAmI(w http.ResponseWriter, r *http.Request) error {
	v, err := a.visitor(r)
	if err != nil {
		return err
	}
	w.Header()["Cache-Status"] = v.outcome.Header()
	return writeJSON(w, r, http.StatusOK, v.profile.person())
}

// logOut answers DELETE /api/session/. Without a session it has nothing to do, and succeeds.
func (a *API) logOut(w http.ResponseWriter, r *http.Request) error {
	if a.crossOrigin.Check(r) != nil {
		return crossOrigin
	}
	if err := a.sessions.end(w, r); err != nil {
		return err
	}
	w.Header()["Cache-Control"] = noStore
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (p profile) person() person {
	return person{ID: p.ID, Username: p.Username, DisplayName: p.DisplayName, Language: p.Language}
}
