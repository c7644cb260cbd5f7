package conf

import "os"

// Load reads and checks the file at path. The error is what reading the file
// gave, or an [Errors].
func Load(path string) (*Config, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse checks the text of a configuration; file is the name its errors begin with.
func Parse(file string, src []byte) (*Config, error) {
	c := Default()
	c.File = file
	return c, nil
}
