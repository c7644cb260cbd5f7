package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/sourcegraph/conc"
)

// websockets serves a handler to websockets, too, as etcd does: each message of the client is a
// line of the request's body, and each line of the answer is a message. A client says who it is
// by the subprotocol "Bearer, TOKEN" or by a cookie "token", since browsers let it set no header.
// A message of more than limit bytes ends the connection.
func websockets(h http.Handler, limit int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if websocket.IsWebSocketUpgrade(r) {
			serveWebsocket(h, limit, w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

var upgrader = websocket.Upgrader{
	ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10,
	CheckOrigin: func(*http.Request) bool { return true }, // a token is needed where anything is
}

// closeTimeout bounds the goodbye to a client.
const closeTimeout = time.Second

// serveWebsocket returns when the client has gone, or the answer is complete, or the context of
// the request ends.
func serveWebsocket(h http.Handler, limit int64, w http.ResponseWriter, r *http.Request) {
	var header http.Header
	if strings.HasPrefix(r.Header.Get("Sec-WebSocket-Protocol"), "Bearer") {
		header = http.Header{"Sec-WebSocket-Protocol": {"Bearer"}}
	}
	conn, err := upgrader.Upgrade(w, r, header)
	if err != nil {
		return // Upgrade has told the client
	}
	conn.SetReadLimit(limit)
	ctx, cancel := context.WithCancel(r.Context())
	body, lines := io.Pipe()
	var wg conc.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	defer cancel()
	wg.Go(func() {
		defer cancel()
		defer conn.Close() // so that nobody writes to a client that has gone
		readMessages(conn, lines)
	})
	// What waits to read from the client, or to be read from, ends with the request.
	defer context.AfterFunc(ctx, func() { _ = lines.CloseWithError(io.EOF); _ = body.CloseWithError(io.EOF) })()
	out := &websocketWriter{conn: conn, header: http.Header{}}
	h.ServeHTTP(out, asRequest(ctx, r, body))
	out.end()
	_ = lines.CloseWithError(io.EOF)
	_ = body.CloseWithError(io.EOF)
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
}

// readMessages passes messages on as lines, until there are no more.
func readMessages(conn *websocket.Conn, lines *io.PipeWriter) {
	for {
		_, payload, err := conn.ReadMessage()
		if err != nil {
			_ = lines.CloseWithError(io.EOF)
			return
		}
		if _, err := lines.Write(append(payload, '\n')); err != nil {
			return
		}
	}
}

// asRequest is the request that a websocket stands for. All of etcd's streams are asked by POST.
func asRequest(ctx context.Context, r *http.Request, body io.Reader) *http.Request {
	out := r.Clone(ctx)
	out.Method, out.Body, out.ContentLength, out.Header = http.MethodPost, io.NopCloser(body), -1, http.Header{}
	for _, name := range []string{"Authorization", "Origin", "Referer"} {
		if v := r.Header.Get(name); v != "" {
			out.Header.Set(name, v)
		}
	}
	if _, token, ok := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), "Bearer,"); ok {
		out.Header.Set("Authorization", "Bearer "+strings.Trim(token, " "))
	}
	if cookie, err := r.Cookie("token"); err == nil {
		out.Header.Set("Authorization", "Bearer "+cookie.Value)
	}
	return out
}

// websocketWriter sends each line that is written as a message, and the last one even if it is
// not a whole line.
type websocketWriter struct {
	conn   *websocket.Conn
	header http.Header
	line   []byte
}

// Header implements http.ResponseWriter: nobody sees it.
func (w *websocketWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter: a websocket has no codes.
func (w *websocketWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (w *websocketWriter) Write(p []byte) (int, error) {
	w.line = append(w.line, p...)
	for {
		line, rest, ok := bytes.Cut(w.line, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if len(line) > 0 {
			if err := w.conn.WriteMessage(websocket.TextMessage, line); err != nil {
				return 0, err
			}
		}
		if w.line = rest; len(rest) == 0 {
			w.line = nil // it may have been a large one
		}
	}
}

// end sends what is left.
func (w *websocketWriter) end() {
	if len(w.line) > 0 {
		_ = w.conn.WriteMessage(websocket.TextMessage, w.line)
	}
}

// Flush implements http.Flusher.
func (w *websocketWriter) Flush() {}
