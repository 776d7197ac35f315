package main

import (
	"errors"

	"daemoneye.dev/procmond/supervisor/control"
)

// askDaemon calls ask for one place after the other until a daemon is there, and
// returns what ask did. The error is [control.ErrNotListening] if no daemon runs
// on any of them, and [control.ErrForbidden] if one may, where we may not look.
func askDaemon(places []string, ask func(place string, c *control.Client) error) error {
	nobody := control.ErrNotListening
	for _, place := range places {
		client, err := control.DialDatabase(place)
		if err != nil {
			return err
		}
		err = ask(place, client)
		client.Close()
		switch {
		case errors.Is(err, control.ErrForbidden):
			nobody = err // a system's daemon is no reason not to find the user's own
		case !errors.Is(err, control.ErrNotListening):
			return err
		}
	}
	return nobody
}

// noDaemon reports whether askDaemon found none, so that the store is what is
// left to look at, and picks it.
func noDaemon(places []string, askErr error) (place string, err error) {
	if !errors.Is(askErr, control.ErrNotListening) && !errors.Is(askErr, control.ErrForbidden) {
		return "", askErr
	}
	place, readable, err := existing(places)
	if err == nil && !readable && errors.Is(askErr, control.ErrForbidden) {
		return "", askErr
	}
	return place, err
}
