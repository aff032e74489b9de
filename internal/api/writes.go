package api

import (
	"errors"
	"net/http"
	"strconv"

	"go.uber.org/zap"

	"walkey/internal/cache"
)

// A write changes the table and nothing else: what is cached is emptied by who follows the table, whoever changes it.

// editing lets a request through that comes from an editor, and not from a page of another origin.
func (a *API) editing(next func(w http.ResponseWriter, r *http.Request, v visitor) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header()["Cache-Control"] = noStore
		if a.crossOrigin.Check(r) != nil {
			return crossOrigin
		}
		v, err := a.visitor(r)
		if err != nil {
			return err
		}
		return next(w, r, v)
	}
}

// addMaterial answers POST /api/materials/.
func (a *API) addMaterial(w http.ResponseWriter, r *http.Request, v visitor) error {
	given, err := readBody(w, r, materialForm, mediaJSON, maxBody)
	if err != nil {
		return err
	}
	m := newRow()
	m.apply(given)
	added, position, err := a.store.add(r.Context(), v, m)
	if err != nil {
		return a.explainChange(err)
	}
	w.Header()["Location"] = []string{"/api/materials/" + strconv.FormatInt(added.ID, 10) + "/"}
	return a.answerChange(w, r, v, http.StatusCreated, added, position)
}

// replaceMaterial answers PUT /api/materials/{id}/.
func (a *API) replaceMaterial(w http.ResponseWriter, r *http.Request, v visitor) error {
	return a.editMaterial(w, r, v, materialForm, mediaJSON, func(current fullMaterial) fullMaterial {
		return fullMaterial{Material: Material{ID: current.ID}, Active: true}
	})
}

// patchMaterial answers PATCH /api/materials/{id}/.
func (a *API) patchMaterial(w http.ResponseWriter, r *http.Request, v visitor) error {
	return a.editMaterial(w, r, v, patchForm, mediaMergePatch, func(current fullMaterial) fullMaterial { return current })
}

func (a *API) editMaterial(w http.ResponseWriter, r *http.Request, v visitor, f *form, media string, start func(fullMaterial) fullMaterial) error {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return noRow
	}
	given, err := readBody(w, r, f, media, maxBody)
	if err != nil {
		return err
	}
	edited, position, err := a.store.edit(r.Context(), v, id, func(current fullMaterial) (fullMaterial, error) {
		if err := checkConditions(r, current); err != nil {
			return fullMaterial{}, err
		}
		next := start(current)
		next.apply(given)
		return next, nil
	})
	if err != nil {
		return a.explainChange(err)
	}
	return a.answerChange(w, r, v, http.StatusOK, edited, position)
}

// deleteMaterial answers DELETE /api/materials/{id}/.
func (a *API) deleteMaterial(w http.ResponseWriter, r *http.Request, v visitor) error {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return noRow
	}
	position, err := a.store.remove(r.Context(), v, id, func(current fullMaterial) error { return checkConditions(r, current) })
	if err != nil {
		return a.explainChange(err)
	}
	a.tellChange(w, r, v, position)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var (
	noRow        = newProblem(http.StatusNotFound, "there is no material with this id")
	changedSince = newProblem(http.StatusPreconditionFailed, "the material is not as the request's condition says; read it again")
	unknownEnd   = newProblem(http.StatusServiceUnavailable, "the database was lost while the change was being made; look whether it was made before you repeat it")
)

// checkConditions compares If-Match and If-None-Match with the material as it is.
func checkConditions(r *http.Request, current fullMaterial) error {
	match, noneMatch := r.Header["If-Match"], r.Header["If-None-Match"]
	if len(match)+len(noneMatch) == 0 {
		return nil
	}
	state, err := current.state()
	if err != nil {
		return err
	}
	if len(match) > 0 && !cache.MatchesState(match, state, true) || len(noneMatch) > 0 && cache.MatchesState(noneMatch, state, false) {
		return changedSince
	}
	return nil
}

func (a *API) explainChange(err error) error {
	switch {
	case errors.Is(err, errNotAllowed):
		return noSession
	case errors.Is(err, errNoRow):
		return noRow
	case errors.Is(err, errOutcomeUnknown):
		a.log.Warn("database lost during a commit", zap.Error(err))
		return unknownEnd
	}
	return err
}

// answerChange answers with a material that was stored.
func (a *API) answerChange(w http.ResponseWriter, r *http.Request, v visitor, status int, m fullMaterial, position uint64) error {
	state, err := m.state()
	if err != nil {
		return err
	}
	w.Header()["Etag"] = []string{`"` + state + `"`}
	a.tellChange(w, r, v, position)
	return writeJSON(w, r, status, m)
}

// tellChange says by when something was changed: to the client, and to the session for its next reads.
func (a *API) tellChange(w http.ResponseWriter, r *http.Request, v visitor, position uint64) {
	if position != unknownPosition {
		w.Header()["Consistency-Token"] = []string{formatPosition(position)}
	} else {
		a.log.Warn("the position of a change is not known")
	}
	if err := a.sessions.kept.Remember(r.Context(), v.token, position, a.sessions.rememberFor); err != nil {
		a.log.Warn("a session does not know of its last write", zap.Error(err))
	}
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) error {
	body, err := jsonBody(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = nosniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = noStore
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has gone needs no answer
	}
	return nil
}
