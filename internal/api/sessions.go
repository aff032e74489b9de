package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
)

const (
	sessionLife   = 14 * 24 * time.Hour // as in Django
	sessionIdle   = 24 * time.Hour
	tokenLength   = 43 // 32 random bytes in base64
	secureCookie  = "__Host-session"
	openCookie    = "session"
	tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Sessions keeps sessions under a token, of which it stores a hash. *cache.Sessions is one.
type Sessions interface {
	Find(ctx context.Context, token string, idle time.Duration) (data []byte, found bool, err error)
	Commit(ctx context.Context, token string, data []byte, expiry time.Time) error
	Delete(ctx context.Context, token string) error
	// Remember and Position keep the position of the session's last write.
	Remember(ctx context.Context, token string, position uint64, life time.Duration) error
	Position(ctx context.Context, token string) (uint64, error)
}

// sessions are the editors' sessions. One is written at login and never again, so that nothing that runs at the same time
// as a logout brings it back.
type sessions struct {
	manager *scs.SessionManager
	kept    Sessions
	// rememberFor is how long a write is remembered. After it no cached answer can be older than the write.
	rememberFor time.Duration
}

func newSessions(kept Sessions, insecure bool, maxStaleness time.Duration) *sessions {
	// scs.New would start a store of its own in memory, with a goroutine that can't be ended cleanly.
	m := &scs.SessionManager{
		Store: sessionStore{kept}, Codec: sessionCodec{}, Lifetime: sessionLife, IdleTimeout: sessionIdle,
		Cookie: scs.SessionCookie{
			Name: secureCookie, Secure: true, HttpOnly: true, Path: "/", SameSite: http.SameSiteLaxMode, Persist: true,
		},
	}
	if insecure {
		m.Cookie.Name, m.Cookie.Secure = openCookie, false
	}
	return &sessions{manager: m, kept: kept, rememberFor: maxStaleness + time.Minute}
}

// token gives the token that a request carries; "" when there is none that could be one.
func (s *sessions) token(r *http.Request) string {
	cookie, err := r.Cookie(s.manager.Cookie.Name)
	if err != nil || len(cookie.Value) != tokenLength || strings.Trim(cookie.Value, tokenAlphabet) != "" {
		return ""
	}
	return cookie.Value
}

// login is what a session holds.
type login struct {
	Editor   int64     `json:"editor"`
	Language string    `json:"language"` // at login; with the id it makes the key of the profile
	Stamp    string    `json:"stamp"`    // of the password's stored hash
	Deadline time.Time `json:"deadline"`
}

// find gives what a token's session holds. found is false when there is no such session any more.
func (s *sessions) find(ctx context.Context, token string) (l login, found bool, err error) {
	ctx, err = s.manager.Load(ctx, token)
	if err != nil {
		return login{}, false, err
	}
	if s.manager.Token(ctx) == "" || !time.Now().Before(s.manager.Deadline(ctx)) {
		return login{}, false, nil
	}
	l, found = s.manager.Get(ctx, loginValue).(login)
	return l, found, nil
}

// begin makes a session with a new token in the place of the one that the request carries, and sends its cookie.
func (s *sessions) begin(w http.ResponseWriter, r *http.Request, l login) error {
	ctx, err := s.manager.Load(r.Context(), s.token(r))
	if err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	if err := s.manager.RenewToken(ctx); err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	s.manager.Put(ctx, loginValue, l)
	token, _, err := s.manager.Commit(ctx)
	if err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	s.manager.WriteSessionCookie(ctx, w, token, s.manager.Deadline(ctx))
	return nil
}

// end makes the request's session, if there is one, worthless and tells the browser to forget it.
func (s *sessions) end(w http.ResponseWriter, r *http.Request) error {
	if token := s.token(r); token != "" {
		if err := s.kept.Delete(r.Context(), token); err != nil {
			return fmt.Errorf("ending a session: %w", err)
		}
	}
	s.manager.WriteSessionCookie(r.Context(), w, "", time.Time{})
	return nil
}

// loginValue is the only name among a session's values.
const loginValue = "login"

// sessionCodec writes sessions as JSON, which other programs can read.
type sessionCodec struct{}

// Encode implements scs.Codec.
func (sessionCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	l, _ := values[loginValue].(login)
	l.Deadline = deadline
	return json.Marshal(l)
}

// Decode implements scs.Codec. What is no session holds no login.
func (sessionCodec) Decode(data []byte) (time.Time, map[string]any, error) {
	var l login
	if json.Unmarshal(data, &l) != nil {
		return time.Time{}, map[string]any{}, nil
	}
	return l.Deadline, map[string]any{loginValue: l}, nil
}

// sessionStore is scs' view of Sessions.
type sessionStore struct{ kept Sessions }

// FindCtx implements scs.CtxStore.
func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	return s.kept.Find(ctx, token, sessionIdle)
}

// CommitCtx implements scs.CtxStore.
func (s sessionStore) CommitCtx(ctx context.Context, token string, data []byte, expiry time.Time) error {
	return s.kept.Commit(ctx, token, data, expiry)
}

// DeleteCtx implements scs.CtxStore.
func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	if token == "" { // a session that was never stored
		return nil
	}
	return s.kept.Delete(ctx, token)
}

// Find implements scs.Store.
func (s sessionStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit implements scs.Store.
func (s sessionStore) Commit(token string, data []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expiry)
}

// Delete implements scs.Store.
func (s sessionStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }
