// Probe is an application that tells which key it has, as a container of it got it. It is also the process that holds
// a pod's sandbox.
//
//	probe [FLAG...] [FILE...]   tells what a variable and the files hold, a line of JSON, and again when a file changes
//	probe pause                 waits until it is ended
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// told is one line: what is not there is an empty string.
type told struct {
	Variable string            `json:"variable"`
	Files    map[string]string `json:"files"`
}

func main() {
	once := flag.Bool("once", false, "end after the first line")
	stubborn := flag.Bool("stubborn", false, "do not end on SIGTERM")
	name := flag.String("variable", "OPENAI_API_KEY", "the variable to tell")
	copied := flag.String("copy", "", "first write the variable to this file")
	flag.Parse()
	if flag.Arg(0) == "pause" {
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
		<-ended
		return
	}
	if *stubborn {
		signal.Ignore(syscall.SIGTERM)
	}
	variable := os.Getenv(*name)
	if *copied != "" {
		if err := os.WriteFile(*copied, []byte(variable), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	}
	files := read(flag.Args())
	tell(told{variable, files})
	for !*once {
		time.Sleep(50 * time.Millisecond)
		if now := read(flag.Args()); !maps.Equal(now, files) {
			files = now
			tell(told{variable, files})
		}
	}
}

func read(paths []string) map[string]string {
	found := map[string]string{}
	for _, path := range paths {
		content, _ := os.ReadFile(path) // a file that is not there is an answer, too
		found[path] = string(content)
	}
	return found
}

func tell(line told) {
	text, _ := json.Marshal(line) // strings always can be
	fmt.Println(string(text))
}
