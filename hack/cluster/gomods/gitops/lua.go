package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// Formats of Argo CD's resource_customizations: health_test.yaml and actions/action_test.yaml.

type healthTests struct {
	Tests []struct {
		InputPath    string         `json:"inputPath"`
		HealthStatus map[string]any `json:"healthStatus"`
	} `json:"tests"`
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string           `json:"inputPath"`
		Result    []map[string]any `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action             string `json:"action"`
		InputPath          string `json:"inputPath"`
		ExpectedOutputPath string `json:"expectedOutputPath"`
	} `json:"actionTests"`
}

// runLuaTests says of each case whether it passed; the error says how many did not.
func runLuaTests(folder string) error {
	failed, passed := 0, 0
	report := func(name string, got, want any, err error) {
		if err == nil && reflect.DeepEqual(got, want) {
			passed++
			fmt.Println("ok  ", name)
			return
		}
		failed++
		fmt.Printf("FAIL %s\n  got  %s\n  want %s\n  %v\n", name, asJSON(got), asJSON(want), err)
	}
	if err := runHealthTests(folder, report); err != nil {
		return err
	}
	if err := runActionTests(filepath.Join(folder, "actions"), report); err != nil {
		return err
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return errors.New("not every case passed")
	}
	return nil
}

type reporter func(name string, got, want any, err error)

func runHealthTests(folder string, report reporter) error {
	var cases healthTests
	if err := readYAML(filepath.Join(folder, "health_test.yaml"), &cases); err != nil {
		return err
	}
	for _, one := range cases.Tests {
		got, err := runScript(filepath.Join(folder, "health.lua"), filepath.Join(folder, one.InputPath))
		report("health "+one.InputPath, got, any(one.HealthStatus), err)
	}
	return nil
}

func runActionTests(folder string, report reporter) error {
	var cases actionTests
	if err := readYAML(filepath.Join(folder, "action_test.yaml"), &cases); err != nil {
		return err
	}
	for _, one := range cases.DiscoveryTests {
		got, err := runScript(filepath.Join(folder, "discovery.lua"), filepath.Join(folder, one.InputPath))
		want := map[string]any{}
		for _, action := range one.Result {
			name := action["name"].(string)
			delete(action, "name")
			want[name] = action
		}
		report("discovery "+one.InputPath, got, any(want), err)
	}
	for _, one := range cases.ActionTests {
		script := filepath.Join(folder, one.Action, "action.lua")
		got, err := runScript(script, filepath.Join(folder, one.InputPath))
		var want any
		if err := readYAML(filepath.Join(folder, one.ExpectedOutputPath), &want); err != nil {
			return err
		}
		report(one.Action+" "+one.InputPath, withoutEmpty(got), withoutEmpty(want), err)
	}
	return nil
}

// runScript runs a script as Argo CD's application controller does, with an object as the global obj: only the
// libraries base, package and table are open (util/lua/lua.go, runLuaWithResourceActionParameters; its reduced os is
// left out here), and there is one second.
func runScript(script, object string) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	enough, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(enough)
	var given map[string]any
	if err := readYAML(object, &given); err != nil {
		return nil, err
	}
	state.SetGlobal("obj", luajson.DecodeValue(state, given))
	if err := state.DoFile(script); err != nil {
		return nil, err
	}
	text, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return nil, err
	}
	var result any
	return result, json.Unmarshal(text, &result)
}

// withoutEmpty leaves out empty lists and objects: Lua has one empty table for both, and Argo CD puts back what was
// there before.
func withoutEmpty(value any) any {
	switch value := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, inner := range value {
			if inner = withoutEmpty(inner); inner != nil {
				kept[key] = inner
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	case []any:
		var kept []any
		for _, inner := range value {
			kept = append(kept, withoutEmpty(inner))
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	}
	return value
}

func readYAML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func asJSON(value any) string {
	text, _ := json.Marshal(value)
	return string(text)
}
