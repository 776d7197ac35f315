package bus

import (
	"context"
	"encoding/json"
	"fmt"

	"daemoneye.dev/procmond/bus/rpc"
)

// Operation carries out one kind of request. Make one with [Handle].
type Operation func(ctx context.Context, payload json.RawMessage) (json.RawMessage, error)

// Handle makes an operation of a function. The payload is decoded into a P, an
// absent one or null is the zero P, and one that does not fit is refused with
// [rpc.CodeMalformed] before fn is called; fields that P does not have are ignored.
//
// fn's context ends at the request's deadline. Its error is the answer: an
// [*rpc.Error] as it is, the context's as [rpc.CodeTimeout] or what else ended it,
// any other as [rpc.CodeInternal] with its text.
func Handle[P, R any](fn func(ctx context.Context, payload P) (R, error)) Operation {
	return func(ctx context.Context, payload json.RawMessage) (json.RawMessage, error) {
		var p P
		if len(payload) > 0 {
			if err := json.Unmarshal(payload, &p); err != nil {
				return nil, &rpc.Error{Code: rpc.CodeMalformed, Message: "the payload does not fit the operation: " + describe(err)}
			}
		}
		result, err := fn(ctx, p)
		if err != nil {
			return nil, err
		}
		encoded, err := json.Marshal(result)
		if err != nil {
			return nil, fmt.Errorf("encode answer: %w", err)
		}
		return encoded, nil
	}
}
