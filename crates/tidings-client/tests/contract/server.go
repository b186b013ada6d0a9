// Serves the answers of cases.json with what Go has in itself. See main.rs.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

type answer struct {
	Status  int
	Headers map[string]string
	Chunks  []string
	End     string
}

type testCase struct {
	Name    string
	Answers []answer
	Repeats bool
}

type server struct {
	cases map[string]testCase
	port  int

	mutex sync.Mutex
	// How many requests each path has had.
	requests map[string]int
}

func (s *server) answerFor(path, name string) *answer {
	s.mutex.Lock()
	index := s.requests[path]
	s.requests[path]++
	s.mutex.Unlock()
	answers := s.cases[name].Answers
	if s.cases[name].Repeats && index >= len(answers) {
		index = len(answers) - 1
	}
	if index >= len(answers) {
		return nil
	}
	return &answers[index]
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	run, name := parts[1], parts[2]
	body, err := io.ReadAll(r.Body)
	check(err)
	answer := s.answerFor(r.URL.Path, name)
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}

	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	received, err := json.Marshal(map[string]any{
		"method": r.Method, "query": r.URL.RawQuery, "headers": headers, "body": string(body),
	})
	check(err)
	settings := r.URL.Query()
	number := func(name string) int {
		value, _ := strconv.Atoi(settings.Get(name))
		return value
	}
	fill := strings.NewReplacer(
		"{first}", fmt.Sprintf("http://127.0.0.1:%d/%s", s.port, run),
		"{other}", fmt.Sprintf("http://localhost:%d/%s", s.port, run),
		"{other-with-user}", fmt.Sprintf("http://ada:lovelace@localhost:%d/%s", s.port, run),
		"{request}", string(received),
		"{payload}", strings.Repeat("x", number("payload")),
	)
	lineEnd := map[string]string{"crlf": "\r\n", "cr": "\r"}[settings.Get("line_end")]
	if lineEnd == "" {
		lineEnd = "\n"
	}

	w.Header().Set("Content-Type", "text/event-stream")
	for name, value := range answer.Headers {
		w.Header().Set(name, fill.Replace(value))
	}
	status := answer.Status
	if status == 0 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	// Each flush is a chunk of HTTP, which arrives as it was sent.
	flusher := w.(http.Flusher)
	flusher.Flush()
	for _, text := range answer.Chunks {
		rest := strings.ReplaceAll(fill.Replace(text), "\n", lineEnd)
		for rest != "" {
			size := number("split")
			if size == 0 || size > len(rest) {
				size = len(rest)
			}
			io.WriteString(w, rest[:size])
			flusher.Flush()
			rest = rest[size:]
		}
	}
	switch answer.End {
	case "cut":
		panic(http.ErrAbortHandler)
	case "silent":
		<-r.Context().Done()
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	table, err := os.ReadFile(os.Args[1])
	check(err)
	var cases []testCase
	check(json.Unmarshal(table, &cases))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	s := &server{cases: map[string]testCase{}, port: listener.Addr().(*net.TCPAddr).Port, requests: map[string]int{}}
	for _, entry := range cases {
		s.cases[entry.Name] = entry
	}
	go func() {
		// The test has ended, in whichever way.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(s.port)
	check(http.Serve(listener, s))
}
